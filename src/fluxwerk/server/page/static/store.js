// What the page knows: who is there, the models, the tasks as the server last described them, and what is being sent.
import { useEffect, useRef, useState } from "./dom.js";
import { call } from "./api.js";

export const state = {
  session: null,
  models: [],
  tasks: new Map(), // id -> row, in no order; a row that changes is replaced by a new one
  newest: [], // the same rows, the newest first; a new list whenever one of them changes
  sending: [], // submits without an answer yet, and those that were refused
  online: true,
  route: location.hash,
  notice: "",
};
const listeners = new Set();

export function change(update) {
  Object.assign(state, update);
  for (const listener of listeners) listener();
}

// Re-render a component when what it selects has changed.
export function useStore(select) {
  const [, render] = useState(0);
  const latest = useRef();
  const value = select(state);
  latest.current = { select, value };
  useEffect(() => {
    const listen = () => {
      if (latest.current.select(state) !== latest.current.value) render((count) => count + 1);
    };
    listeners.add(listen);
    listen();
    return () => listeners.delete(listen);
  }, []);
  return value;
}

// Take over an answer.  It may have been on the way for long, so it does not let a task run again that has ended.
export function keep(rows) {
  hear(rows.filter(({ id, stage }) => stage === "ended" || state.tasks.get(id)?.stage !== "ended"));
}

// Take over news, which come in order: of a task that runs, only they have its preview.
export function hear(rows) {
  for (const row of rows) {
    // News of the end of a task that was deleted here would make a row with nothing but its id.
    if (dropped.has(row.id) || (row.gone && !state.tasks.has(row.id))) continue;
    const preview = row.stage === "ended" ? null : (row.preview ?? state.tasks.get(row.id)?.preview);
    state.tasks.set(row.id, { ...state.tasks.get(row.id), ...row, preview });
  }
  sort();
}

// What was deleted here; an answer that was read before, and comes late, does not bring it back.
const dropped = new Set();

export function drop(id) {
  dropped.add(id);
  state.tasks.delete(id);
  sort();
}

const isNewer = (a, b) => b.accepted - a.accepted || (a.id < b.id ? 1 : -1);
const sort = () => change({ newest: [...state.tasks.values()].sort(isNewer) });

export const modelOf = (name) => state.models.find((model) => model.name === name);

// Say something to everyone, screen readers included; it goes away by itself.
let clearing;
export function announce(notice) {
  clearTimeout(clearing);
  change({ notice });
  clearing = setTimeout(() => change({ notice: "" }), 6000);
}

export async function refresh() {
  // What arrives while the answer is on the way is not in it, and yet is not gone.
  const known = state.newest;
  const { tasks, more } = await call("GET", "/v1/tasks?limit=100");
  // What is missing among the newest is gone; older tasks that the gallery has asked for stay.
  const listed = new Set(tasks.map(({ id }) => id));
  const oldest = more ? tasks.at(-1) : null;
  for (const one of known) if (!listed.has(one.id) && !(oldest && isNewer(oldest, one) < 0)) state.tasks.delete(one.id);
  keep(tasks);
}

export async function refreshSession() {
  change({ session: await call("GET", "/v1/session") });
}

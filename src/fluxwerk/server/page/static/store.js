// What the page knows: who is there, the models, the tasks as the server last described them, and what is being sent.
import { useEffect, useRef, useState } from "./dom.js";
import { call } from "./api.js";

export const state = {
  session: null,
  models: [],
  tasks: new Map(), // id -> row, in no order
  more: true, // whether the server has older tasks than these
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

export function keep(rows) {
  const tasks = new Map(state.tasks);
  for (const row of rows) tasks.set(row.id, { ...tasks.get(row.id), preview: null, ...row });
  change({ tasks });
}

export function drop(id) {
  const tasks = new Map(state.tasks);
  tasks.delete(id);
  change({ tasks });
}

export const newestFirst = (tasks) => [...tasks.values()].sort((a, b) => b.accepted - a.accepted || (a.id < b.id ? 1 : -1));

export const modelOf = (name) => state.models.find((model) => model.name === name);

// Say something to everyone, screen readers included; it goes away by itself.
let clearing;
export function announce(notice) {
  clearTimeout(clearing);
  change({ notice });
  clearing = setTimeout(() => change({ notice: "" }), 6000);
}

export async function refresh() {
  const { tasks, more } = await call("GET", "/v1/tasks?limit=100");
  const kept = new Map();
  for (const row of tasks) kept.set(row.id, { ...state.tasks.get(row.id), ...row });
  change({ tasks: kept, more });
}

export async function refreshSession() {
  change({ session: await call("GET", "/v1/session") });
}

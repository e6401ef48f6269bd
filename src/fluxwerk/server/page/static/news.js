// News of the tasks: by server-sent events, and by asking again where no stream can be held.
import { change, keep, refresh, refreshSession, state } from "./store.js";
import { resend } from "./submits.js";

const ASK_EVERY = 1500;

let source = null;
let asking = null;

export function listen() {
  source?.close();
  if (!window.EventSource) return poll();
  source = new EventSource("/v1/events");
  source.addEventListener("task", (event) => {
    const row = JSON.parse(event.data);
    const known = state.tasks.get(row.id);
    keep([row]);
    if (known?.stage !== row.stage && row.stage === "ended") refreshSession().catch(() => {});
  });
  source.addEventListener("gone", (event) => {
    const { id } = JSON.parse(event.data);
    if (state.tasks.has(id)) keep([{ id, gone: true }]);
  });
  source.addEventListener("ready", () => back());
  source.onerror = () => {
    change({ online: false });
    // A browser gives up after an answer that is no stream, such as the 502 of a proxy; then the page asks by itself.
    if (source.readyState === EventSource.CLOSED) poll();
  };
}

async function back() {
  clearTimeout(asking);
  asking = null;
  const wasAway = !state.online;
  change({ online: true });
  if (wasAway) await refresh().catch(() => {});
  resend();
}

function poll() {
  if (asking) return;
  const ask = async () => {
    try {
      await refresh();
      if (!state.online) {
        asking = null;
        change({ online: true });
        resend();
        return listen();
      }
    } catch {
      change({ online: false });
    }
    asking = setTimeout(ask, ASK_EVERY);
  };
  asking = setTimeout(ask, ASK_EVERY);
}

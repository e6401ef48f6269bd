// News of the tasks: by server-sent events, and by asking again where no stream can be held.
import { change, hear, refresh, refreshSession, state } from "./store.js";
import { resend } from "./submits.js";

// Milliseconds between two questions to a server that is away.
export const ASK_EVERY = 1500;
const FRAME = 16;

let source = null;
let told = [];
let asking = null;

export function listen() {
  source?.close();
  if (!window.EventSource) return poll();
  source = new EventSource("/v1/events");
  source.addEventListener("task", (event) => tell(JSON.parse(event.data)));
  source.addEventListener("gone", (event) => tell({ id: JSON.parse(event.data).id, gone: true }));
  source.addEventListener("ready", () => back());
  source.onerror = () => {
    change({ online: false });
    // A browser gives up after an answer that is no stream, such as the 502 of a proxy; then the page asks by itself.
    if (source.readyState === EventSource.CLOSED) poll();
  };
}

// A stream begins with up to a hundred tasks: what comes within a frame is shown at once.
function tell(row) {
  if (told.push(row) === 1) setTimeout(show, FRAME);
}

function show() {
  const rows = told;
  told = [];
  const hasEnded = rows.some(({ id, stage }) => stage === "ended" && state.tasks.get(id)?.stage !== "ended");
  hear(rows);
  if (hasEnded) refreshSession().catch(() => {});
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

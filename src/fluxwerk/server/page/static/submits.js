// Submits: each has an idempotency key and is written down before it leaves, so that a reload, a closed tab or a
// lost answer neither loses an image nor pays for it twice.
import { call } from "./api.js";
import { unique } from "./dom.js";
import { announce, change, keep, refreshSession, state } from "./store.js";
import * as kept from "./kept.js";

// The server forgets a key with its task; after this time a submit without an answer is shown, and not repeated.
const REPEATED_FOR = 10 * 60 * 1000;
// Nobody knows whether these were taken, as after no answer at all: a proxy in front of the server says so, or the server
// itself.  A repetition with the same key settles it.
const UNSETTLED = [500, 502, 503, 504];
const BUSY = [409, 429];
const AGAIN_AFTER = 1;
const busy = new Set();

export async function submit(request, count, references) {
  const entries = [];
  for (let number = 0; number < count; number++) {
    const fields = { ...request.fields };
    if (fields.seed !== undefined) fields.seed += number;
    entries.push({
      key: unique(),
      at: Date.now(),
      model: request.model,
      path: request.path,
      fields,
      references,
      size: request.size,
      state: "sending",
    });
  }
  change({ sending: [...entries, ...state.sending] });
  await Promise.all(entries.map((entry) => kept.put("sending", entry.key, entry)));
  await Promise.all(entries.map(send));
}

async function send(entry) {
  if (busy.has(entry.key)) return;
  busy.add(entry.key);
  update(entry, { state: "sending", message: "" });
  try {
    const task = await call("POST", entry.path, entry.fields, { "Idempotency-Key": entry.key });
    if (entry.references.length) await kept.put("references", task.id, entry.references);
    await done(entry);
    keep([await call("GET", `/v1/tasks/${task.id}`)]);
    refreshSession().catch(() => {});
  } catch (error) {
    await failed(entry, error);
  } finally {
    busy.delete(entry.key);
  }
}

const isWaiting = (entry) => state.sending.some((one) => one.key === entry.key && one.state === "waiting");
const isOld = (entry) => Date.now() - entry.at > REPEATED_FOR;

async function failed(entry, error) {
  if (error.status === 0) {
    update(entry, { state: "unanswered", message: "" });
  } else if (UNSETTLED.includes(error.status) && isOld(entry)) {
    update(entry, { state: "doubt", message: "" });
  } else if (UNSETTLED.includes(error.status) || BUSY.includes(error.status)) {
    update(entry, { state: "waiting", message: error.message });
    setTimeout(() => isWaiting(entry) && send(entry), (error.retryAfter ?? AGAIN_AFTER) * 1000);
  } else {
    update(entry, { state: "refused", status: error.status, message: error.message });
    await kept.remove("sending", entry.key);
    announce(`Not accepted: ${error.message}`);
  }
}

// Take up what an earlier page, or a server that was away, left without an answer.
export async function resend() {
  for (const entry of await kept.all("sending")) {
    const known = state.sending.find(({ key }) => key === entry.key);
    if (!known) change({ sending: [...state.sending, entry] });
    if (isOld(entry)) update(entry, { state: "doubt", message: "" });
    else if (known?.state !== "waiting") send(known ?? entry);
  }
}

export async function dismiss(entry) {
  await done(entry);
}

export function retry(entry) {
  return send(entry);
}

async function done(entry) {
  change({ sending: state.sending.filter(({ key }) => key !== entry.key) });
  await kept.remove("sending", entry.key);
}

function update(entry, news) {
  Object.assign(entry, news);
  change({ sending: state.sending.map((one) => (one.key === entry.key ? { ...one, ...news } : one)) });
}

// One image, or what became of it: shown in place with what happened, what it cost and what to do.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./dom.js";
import { call } from "./api.js";
import { fromTask } from "./draft.js";
import { Icon } from "./icons.js";
import { announce, keep, useStore } from "./store.js";
import { dismiss, retry } from "./submits.js";
import { endingOf, progressOf, refusalOf } from "./words.js";

export const thumbnail = (id) => `/v1/tasks/${id}/thumbnail`;
export const shape = ({ width, height }) => ({ aspectRatio: `${width || 1} / ${height || 1}` });

// `style` places a card; without one it has the shape of its image.
export function Card({ task, style = shape(task), selecting = false, selected = false, onSelect }) {
  if (task.stage !== "ended") return html`<${Pending} task=${task} style=${style} />`;
  if (task.status !== "Ready" || task.gone) return html`<${Ended} task=${task} style=${style} />`;
  const open = () => (selecting ? onSelect(task.id) : (location.hash = `#/image/${task.id}`));
  return html`
    <article class="card ready" style=${style} data-task=${task.id} data-selected=${selected}>
      <button type="button" class="open" onClick=${open} aria-pressed=${selecting ? selected : undefined} aria-label=${`${selecting ? "Select" : "Open"}: ${task.prompt || task.model}`} draggable="true"
        onDragStart=${(event) => event.dataTransfer.setData("application/x-fluxwerk-task", task.id)}>
        <${Thumbnail} id=${task.id} />
      </button>
      ${selecting && html`<span class="tick" aria-hidden="true">${selected && html`<${Icon} name="check" size="14" />`}</span>`}
      ${task.engine === "offline" && html`<span class="badge">placeholder</span>`}
    </article>`;
}

function Thumbnail({ id }) {
  const image = useRef(null);
  const [lost, setLost] = useState(false);
  useLayoutEffect(() => () => {
    // Whoever scrolls far does not wait for the images on the way.
    if (image.current && !image.current.complete) image.current.removeAttribute("src");
  }, []);
  if (lost) return html`<${Lost} onBack=${() => setLost(false)} />`;
  return html`<img ref=${image} src=${thumbnail(id)} alt="" loading="lazy" decoding="async" draggable=${false} onError=${() => setLost(true)} />`;
}

function Lost({ onBack }) {
  const online = useStore((s) => s.online);
  const before = useRef(online);
  useEffect(() => {
    if (online !== before.current) onBack();
  }, [online]);
  return html`<span class="lost"><${Icon} name="image" />${online ? "no longer kept" : "waiting for the server"}</span>`;
}

function Pending({ task, style }) {
  const [ending, setEnding] = useState(false);
  async function cancel() {
    setEnding(true);
    try {
      const row = await call("DELETE", `/v1/tasks/${task.id}`);
      keep([row]);
      announce(row.cancelled ? "Cancelled." : "It was finished already.");
    } catch (error) {
      announce(error.message);
    } finally {
      setEnding(false);
    }
  }
  const share = Math.round((task.progress ?? 0) * 100);
  return html`
    <article class="card pending" style=${style} data-task=${task.id} data-stage=${task.stage}>
      ${task.preview?.image && html`<img class="preview" src=${task.preview.image} alt="Preview of the image so far" />`}
      <div class="pending-foot">
        <span role="status">${progressOf(task)}</span>
        <button type="button" class="quiet" disabled=${ending} onClick=${cancel}>Cancel</button>
      </div>
      <progress max="100" value=${share || undefined} aria-label=${progressOf(task)}></progress>
    </article>`;
}

function Ended({ task, style }) {
  const keepFor = useStore((s) => s.session?.keep);
  const { title, text } = endingOf(task, keepFor);
  return html`
    <article class="card ended" style=${style} data-task=${task.id} data-status=${task.status}>
      <h3><${Icon} name="alert" size="16" />${title}</h3>
      <p>${text}</p>
      ${title !== "In doubt" && html`<button type="button" class="secondary" onClick=${() => { fromTask(task); document.getElementById("prompt")?.focus(); }}>Use this prompt again</button>`}
    </article>`;
}

export function Sending({ entry }) {
  const { title, text } = refusalOf(entry);
  const calm = entry.state === "sending" || entry.state === "waiting";
  return html`
    <article class=${`card ${calm ? "pending" : "ended"}`} style=${entry.size ? shape(entry.size) : undefined} data-sending=${entry.state}>
      ${calm ? html`<div class="pending-foot"><span role="status">${title}</span></div><progress aria-label=${title}></progress>` : html`<h3><${Icon} name="alert" size="16" />${title}</h3>`}
      ${text && html`<p>${text}</p>`}
      ${entry.state === "refused" || entry.state === "doubt"
        ? html`<div class="pair"><button type="button" class="secondary" onClick=${() => retry(entry)}>Try again</button><button type="button" class="quiet" onClick=${() => dismiss(entry)}>Dismiss</button></div>`
        : null}
    </article>`;
}

// References: given by drag, paste, file dialog, URL or from the gallery; numbered as the prompt calls them.
import { html, useEffect, useRef, useState } from "./dom.js";
import { edit, slotsOf } from "./draft.js";
import { Icon } from "./icons.js";
import { filesOf, fromTask, fromUrl, read } from "./images.js";
import { announce, modelOf, state } from "./store.js";

const GALLERY = "application/x-fluxwerk-task";

export async function add(images, limit = slotsOf(modelOf(state.draft.model)).length) {
  const model = modelOf(state.draft.model);
  if (!limit) return announce(`${model.title} takes no references; choose a model that does.`);
  const room = limit - state.draft.references.length;
  if (images.length > room) announce(`${model.title} takes at most ${limit} references; the rest is left out.`);
  for (const wanted of images.slice(0, Math.max(0, room))) {
    try {
      const image = await wanted(model);
      edit((draft) => ({ references: [...draft.references, image] }));
      announce(`Image ${state.draft.references.length} added, ${image.width} by ${image.height}${image.note ? `, ${image.note}` : ""}.`);
    } catch (error) {
      announce(error.message);
    }
  }
}

export const ofFile = (file) => (model) => read(file, { name: file.name, most: usable(model) });
export const ofTask = (id) => () => fromTask(id);
const ofUrl = (url) => (model) => fromUrl(url, usable(model));
// FLUX.2 shrinks inputs to four megapixels before it looks at them.
const usable = (model) => (model.family.startsWith("flux-2") ? 4 : model.largest_input_megapixels);

function dropped(event) {
  const task = event.dataTransfer.getData(GALLERY);
  if (task) return [ofTask(task)];
  return filesOf(event.dataTransfer).map(ofFile);
}

// Images that are pasted anywhere on the page become references, or the image to start from.
export function usePaste(onImages) {
  useEffect(() => {
    const paste = (event) => {
      const files = filesOf(event.clipboardData);
      if (!files.length) return;
      event.preventDefault();
      onImages(files.map(ofFile));
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, [onImages]);
}

export function References({ draft, model, onName }) {
  const slots = slotsOf(model);
  const [over, setOver] = useState(false);
  const labels = slots.map((slot, number) => (slot.match(/^(person|garment)$/) ? slot : `image ${number + 1}`));
  usePaste(add);

  function move(from, to) {
    if (to < 0 || to >= draft.references.length) return;
    const references = [...draft.references];
    references.splice(to, 0, ...references.splice(from, 1));
    edit({ references });
    announce(`Moved to place ${to + 1}.`);
  }
  function drop(event) {
    event.preventDefault();
    setOver(false);
    const from = event.dataTransfer.getData("text/x-reference");
    if (from === "") return add(dropped(event));
    const tile = event.target.closest("[data-place]");
    return tile && move(Number(from), Number(tile.dataset.place));
  }
  const taken = draft.references.length;
  return html`
    <div class="references" data-over=${over} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <ol class="tiles" aria-label="References">
        ${draft.references.map((image, place) => html`
          <li class="tile" key=${image.id} data-place=${place} data-unused=${place >= slots.length} draggable="true"
            onDragStart=${(event) => event.dataTransfer.setData("text/x-reference", String(place))}>
            <img src=${image.url} alt=${`Reference ${place + 1}: ${image.name}, ${image.width} × ${image.height}`} />
            <button type="button" class="number" title="Write its name into the prompt" aria-label=${`Write “${labels[place] ?? "image"}” into the prompt`} onClick=${() => onName(place + 1)}>${place + 1}</button>
            <span class="tile-size">${image.width} × ${image.height}${image.note && html`<br />scaled down`}</span>
            <span class="tile-tools">
              <button type="button" aria-label=${`Move image ${place + 1} to the front`} disabled=${place === 0} onClick=${() => move(place, place - 1)}><${Icon} name="left" size="14" /></button>
              <button type="button" aria-label=${`Move image ${place + 1} to the back`} disabled=${place === taken - 1} onClick=${() => move(place, place + 1)}><${Icon} name="right" size="14" /></button>
              <button type="button" aria-label=${`Remove image ${place + 1}`} onClick=${() => edit({ references: draft.references.filter((_, n) => n !== place) })}><${Icon} name="close" size="14" /></button>
            </span>
          </li>`)}
        ${taken < slots.length && html`<li><${Adder} label=${taken ? "Add" : "Add references"} multiple onFiles=${add} onUrl=${(url) => add([ofUrl(url)])} /></li>`}
      </ol>
      ${taken === 0 && html`<p class="hint">Drop, paste or choose up to ${slots.length} ${slots.length === 1 ? "image" : "images"}.</p>`}
      ${taken > slots.length && html`<p class="hint wrong">${model.title} uses the first ${slots.length} of these ${taken}.</p>`}
    </div>`;
}

function Adder({ label, multiple, onFiles, onUrl }) {
  const file = useRef(null);
  const [asking, setAsking] = useState(false);
  const [url, setUrl] = useState("");
  function send(event) {
    event.preventDefault();
    setAsking(false);
    if (url) onUrl(url);
    setUrl("");
  }
  return html`
    <div class="adder">
      <button type="button" class="quiet" onClick=${() => file.current.click()}><${Icon} name="image" size="16" />${label}</button>
      <button type="button" class="quiet" aria-label="Add an image by its URL" title="By URL" aria-expanded=${asking} onClick=${() => setAsking(!asking)}><${Icon} name="link" size="16" /></button>
      <input ref=${file} type="file" hidden accept="image/png,image/jpeg,image/webp" multiple=${multiple} aria-label="Choose images"
        onChange=${(event) => { onFiles([...event.target.files].map(ofFile)); event.target.value = ""; }} />
      ${asking && html`
        <form class="by-url" onSubmit=${send}>
          <input type="url" required aria-label="URL of an image" placeholder="https://…" value=${url} onInput=${(event) => setUrl(event.target.value)} />
          <button type="submit">Add</button>
        </form>`}
    </div>`;
}

// The one image that fill and expand start from.
export function Source({ image }) {
  const [over, setOver] = useState(false);
  async function take([wanted]) {
    if (!wanted) return;
    try {
      edit({ source: await wanted(modelOf(state.draft.model)), mask: null });
    } catch (error) {
      announce(error.message);
    }
  }
  usePaste(take);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    take(dropped(event));
  };
  return html`
    <div class="source" data-over=${over} data-empty=${!image} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      ${image
        ? html`<p class="source-line"><span>${image.name}<small>${image.width} × ${image.height}${image.note && `, ${image.note}`}</small></span>
            <button type="button" class="quiet" onClick=${() => edit({ source: null, mask: null })}>Another image</button></p>`
        : html`<${Adder} label="Choose an image" onFiles=${take} onUrl=${(url) => take([ofUrl(url)])} /><p class="hint">or drop or paste it here</p>`}
    </div>`;
}

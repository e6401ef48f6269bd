// Make: the prompt with its references, the model with exactly its options, the price, and the button.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./dom.js";
import { Advice } from "./advice.js";
import { call } from "./api.js";
import { edit, formatsOf, inputSizes, kindOf, missing, otherOptions, requestOf, save, sizeFields, slotsOf, chooseModel } from "./draft.js";
import { Icon } from "./icons.js";
import { Field } from "./field.js";
import { Frame } from "./frame.js";
import { Mask } from "./mask.js";
import { Picker } from "./picker.js";
import { References, Source } from "./references.js";
import { Size } from "./size.js";
import { announce, modelOf, state, useStore } from "./store.js";
import { submit } from "./submits.js";
import { credits, dollars } from "./words.js";

const KINDS = [
  ["create", "Create"],
  ["fill", "Fill"],
  ["expand", "Expand"],
];
const MOST = 8;
const LARGEST_SEED = 2 ** 32 - 1;

export function Composer() {
  const draft = useStore((s) => s.draft);
  const model = useStore((s) => modelOf(s.draft.model));
  const price = usePrice(draft, model);
  const [busy, setBusy] = useState(false);
  const lack = missing(draft, model);
  const kind = kindOf(model);

  async function make() {
    if (lack || busy) return announce(lack);
    setBusy(true);
    try {
      await save();
      const { references, ...request } = await requestOf(draft, model);
      announce(draft.count === 1 ? "One image is on its way." : `${draft.count} images are on their way.`);
      document.querySelector(".stage")?.scrollTo({ top: 0 });
      submit(request, draft.count, references);
    } finally {
      setBusy(false);
    }
  }

  function onKeyDown(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      make();
    }
  }

  if (!model) return html`<section class="composer" aria-label="Make an image"><p class="hint">Loading the models …</p></section>`;
  return html`
    <section class="composer" aria-label="Make an image" onKeyDown=${onKeyDown}>
      <div class="composer-body">
        <${Kinds} kind=${kind} />
        ${kind !== "create" && html`<${Source} image=${draft.source} />`}
        ${kind === "fill" && draft.source && html`<${Mask} source=${draft.source} />`}
        ${kind === "expand" && draft.source && html`<${Frame} draft=${draft} model=${model} />`}
        <${Prompt} draft=${draft} model=${model} />
        <${Picker} model=${model} />
        ${kind === "create" && html`<${Size} draft=${draft} model=${model} />`}
        <${Rows} draft=${draft} model=${model} />
      </div>
      <footer class="composer-foot">
        <${Price} price=${price} count=${draft.count} />
        <button class="primary" type="button" onClick=${make} aria-disabled=${Boolean(lack) || busy} aria-describedby="lack">
          ${draft.count === 1 ? "Make image" : `Make ${draft.count} images`}
        </button>
        <p id="lack" class="hint">${lack || html`<kbd>Ctrl</kbd> <kbd>Enter</kbd> in the prompt makes it, too.`}</p>
      </footer>
    </section>`;
}

function Kinds({ kind }) {
  const first = (wanted) => state.models.find((model) => kindOf(model) === wanted && (wanted !== "create" || model.name === "flux-2-pro")) ?? state.models.find((model) => kindOf(model) === wanted);
  return html`
    <div class="segments" role="group" aria-label="What to do">
      ${KINDS.filter(([name]) => first(name)).map(
        ([name, title]) => html`
          <button type="button" aria-pressed=${kind === name} onClick=${() => kind !== name && chooseModel(first(name).name)}>${title}</button>`,
      )}
    </div>`;
}

function Prompt({ draft, model }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    const { style } = box.current ?? {};
    if (!style) return;
    style.height = "auto";
    style.height = `${box.current.scrollHeight}px`;
  }, [draft.prompt]);
  if (!model.options.prompt) return html`<p class="hint">${model.title} needs no prompt.</p>`;

  function name(number) {
    const at = box.current.selectionStart ?? draft.prompt.length;
    const before = draft.prompt.slice(0, at);
    const word = `${before && !/\s$/.test(before) ? " " : ""}image ${number}`;
    edit({ prompt: before + word + draft.prompt.slice(at) });
    box.current.focus();
    requestAnimationFrame(() => box.current.setSelectionRange(at + word.length, at + word.length));
  }

  const takes = slotsOf(model).length > 0;
  return html`
    <div class="prompt-card">
      <label class="label" for="prompt">Prompt</label>
      <textarea id="prompt" ref=${box} rows="3" value=${draft.prompt} placeholder=${placeholder(model, draft)}
        onInput=${(event) => edit({ prompt: event.target.value })}></textarea>
      <${Advice} draft=${draft} model=${model} />
      ${takes && html`<${References} draft=${draft} model=${model} onName=${name} />`}
    </div>`;
}

function placeholder(model, draft) {
  if (kindOf(model) === "fill") return "What shall appear where you painted?";
  if (kindOf(model) === "expand") return "What lies beyond the edges? May stay empty.";
  return draft.references.length ? "Say what shall happen to image 1 …" : "A lighthouse on a basalt cliff, last light, long exposure …";
}

function Rows({ draft, model }) {
  const formats = formatsOf(model);
  const others = otherOptions(model);
  return html`
    <div class="rows">
      <div class="row">
        <span class="label" id="count-label">Images</span>
        <div class="stepper" role="group" aria-labelledby="count-label">
          <button type="button" aria-label="Fewer images" disabled=${draft.count <= 1} onClick=${() => edit({ count: draft.count - 1 })}>−</button>
          <output aria-live="polite">${draft.count}</output>
          <button type="button" aria-label="More images" disabled=${draft.count >= MOST} onClick=${() => edit({ count: draft.count + 1 })}>+</button>
        </div>
      </div>
      ${formats.length > 0 && html`
        <div class="row">
          <label class="label" for="format">Format</label>
          <select id="format" value=${draft.format || model.options.output_format.default || "jpeg"} onChange=${(event) => edit({ format: event.target.value })}>
            ${formats.map((format) => html`<option value=${format} selected=${format === (draft.format || model.options.output_format.default || "jpeg")}>${format.toUpperCase()}</option>`)}
          </select>
        </div>`}
      ${model.options.seed && html`<${Seed} draft=${draft} />`}
      ${others.length > 0 && html`
        <details class="more">
          <summary>More options of ${model.title}<${Icon} name="down" size="16" /></summary>
          ${others.map(([name, option]) => html`<${Field} key=${name} name=${name} option=${option} value=${draft.options[name]} />`)}
        </details>`}
    </div>`;
}

function Seed({ draft }) {
  const roll = () => edit({ seed: String(crypto.getRandomValues(new Uint32Array(1))[0]), locked: true });
  const type = (event) => edit({ seed: event.target.value.replace(/\D/g, "").slice(0, 10), locked: event.target.value !== "" });
  const capped = Math.min(LARGEST_SEED, Number(draft.seed || 0));
  return html`
    <div class="row">
      <label class="label" for="seed">Seed</label>
      <div class="seed">
        <input id="seed" inputmode="numeric" placeholder="random" value=${draft.locked ? draft.seed : ""} onInput=${type} onBlur=${() => draft.seed && edit({ seed: String(capped) })} />
        <button type="button" class="quiet" aria-label="Roll a seed" title="Roll a seed" onClick=${roll}><${Icon} name="dice" /></button>
        <button type="button" class="quiet" aria-pressed=${draft.locked} aria-label="Keep this seed" title="Keep this seed"
          onClick=${() => (draft.locked ? edit({ locked: false }) : draft.seed ? edit({ locked: true }) : roll())}>
          <${Icon} name=${draft.locked ? "lock" : "unlock"} />
        </button>
      </div>
    </div>`;
}

// The server computes the price by the guide's formula; a page that did it too could disagree.
function usePrice(draft, model) {
  const [price, setPrice] = useState(null);
  const asked = model && JSON.stringify({ model: model.name, inputs: inputSizes(draft, model), ...sizeFields(draft, model) });
  useEffect(() => {
    if (!asked) return undefined;
    let current = true;
    const timer = setTimeout(async () => {
      try {
        const found = await call("POST", "/v1/price", JSON.parse(asked));
        if (current) setPrice(found);
      } catch (error) {
        if (current) setPrice({ cost: null, message: error.message });
      }
    }, 80);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [asked]);
  return price;
}

function Price({ price, count }) {
  if (!price) return html`<p class="price" aria-live="polite">…</p>`;
  if (price.message) return html`<p class="price wrong" aria-live="polite">${price.message}</p>`;
  if (price.cost === null) return html`<p class="price" aria-live="polite">Price not public<small>${price.width} × ${price.height}</small></p>`;
  const total = price.cost * count;
  return html`
    <p class="price" aria-live="polite" data-credits=${total}>
      ${credits(total)} <span class="dollars">${dollars(total)}</span>
      <small>${count > 1 ? `${count} × ${credits(price.cost)}, ` : ""}${price.width} × ${price.height}</small>
    </p>`;
}

// The model picker: what each model is good for, how fast it is, and what it costs.
import { html, useLayoutEffect, useRef, useState } from "./dom.js";
import { chooseModel, kindOf } from "./draft.js";
import { Icon } from "./icons.js";
import { useStore } from "./store.js";
import { credits } from "./words.js";

const FAMILIES = { "flux-2": "FLUX.2", "flux-3": "FLUX.3", "flux-kontext": "FLUX.1 Kontext", "flux-1": "FLUX.1", "flux-ultra": "FLUX.1", "flux-fill": "FLUX.1 tools", "flux-tools": "FLUX tools", "flux-2-lora": "Your own LoRA" };

export function priceOf({ price }) {
  if (!price) return "price not public";
  if (price.image !== null && price.image !== undefined) return price.image === 0 ? "free" : credits(price.image);
  const tiers = Object.values(price.resolution ?? {});
  return `from ${credits(tiers.length ? Math.min(...tiers) : price.first)}`;
}

// By the models' own names: klein is made for speed, pro for a quick turn-around, max and flex for quality.
export function speedOf({ name }) {
  if (/klein/.test(name)) return "fast";
  if (/max|flex|ultra|raw/.test(name)) return "thorough";
  return "balanced";
}

export function Picker({ model }) {
  const models = useStore((s) => s.models);
  const [open, setOpen] = useState(false);
  const root = useRef(null);
  const button = useRef(null);

  // Before the browser paints: the key that follows the one that opened it is for the list.
  useLayoutEffect(() => {
    if (!open) return undefined;
    const outside = (event) => !root.current.contains(event.target) && setOpen(false);
    document.addEventListener("pointerdown", outside);
    root.current.querySelector("[aria-checked=true]")?.focus();
    return () => document.removeEventListener("pointerdown", outside);
  }, [open]);

  const close = () => {
    setOpen(false);
    button.current.focus();
  };
  function onKeyDown(event) {
    if (event.key === "Escape") {
      event.stopPropagation();
      return close();
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return undefined;
    event.preventDefault();
    const all = [...root.current.querySelectorAll("[role=radio]")];
    return all[(all.indexOf(document.activeElement) + step + all.length) % all.length]?.focus();
  }
  const shown = models.filter((one) => kindOf(one) === kindOf(model));
  const families = [...new Set(shown.map((one) => FAMILIES[one.family] ?? one.family))];
  return html`
    <div class="picker" ref=${root}>
      <span class="label" id="model-label">Model</span>
      <button type="button" class="picked" ref=${button} aria-expanded=${open} aria-controls="models" aria-labelledby="model-label model-name" onClick=${() => setOpen(!open)}>
        <span><b id="model-name">${model.title}</b><small>${model.best_for}</small></span>
        <span class="facts"><span>${priceOf(model)}</span><span class="speed" data-speed=${speedOf(model)}>${speedOf(model)}</span></span>
        <${Icon} name="down" />
      </button>
      ${open && html`
        <div class="models" id="models" role="radiogroup" aria-labelledby="model-label" onKeyDown=${onKeyDown}>
          ${families.map((family) => html`
            <p class="family" role="presentation">${family}</p>
            ${shown.filter((one) => (FAMILIES[one.family] ?? one.family) === family).map((one) => html`
              <button type="button" role="radio" key=${one.name} aria-checked=${one.name === model.name} tabindex=${one.name === model.name ? 0 : -1}
                onClick=${() => { chooseModel(one.name); close(); }}>
                <span><b>${one.title}</b><small>${one.best_for}${one.licence ? ` · ${one.licence}` : ""}</small></span>
                <span class="facts"><span>${priceOf(one)}</span><span class="speed" data-speed=${speedOf(one)}>${speedOf(one)}</span></span>
              </button>`)}`)}
        </div>`}
    </div>`;
}

// The size: shapes to choose from, and numbers that snap to the model's grid.
import { html, useState } from "./dom.js";
import { edit, RATIOS, shapeOf, sizeOf, snapped } from "./draft.js";

const MEGAPIXELS = [1, 2, 4];

export function Size({ draft, model }) {
  if (model.output === "source") return html`<p class="hint">The image keeps the size of the one it is made from.</p>`;
  const free = model.output === "size";
  const ratios = model.options.aspect_ratio?.choices ?? RATIOS;
  const choose = (ratio) => edit(free && ratio !== "match" ? { ratio, ...sizeOf(ratio, draft.megapixels, model) } : { ratio });
  const largest = Math.min(model.maximum_pixels ?? Infinity, (model.options.width?.maximum ?? 4096) ** 2) / 1048576;
  return html`
    <div class="size" role="group" aria-label="Size">
      <span class="label">Size</span>
      <div class="chips">
        ${model.references > 0 && draft.references.length > 0 && html`<${Chip} name="match" label="Like image 1" on=${draft.ratio === "match"} choose=${choose} />`}
        ${ratios.map((ratio) => html`<${Chip} key=${ratio} name=${ratio} label=${ratio} on=${draft.ratio === ratio} choose=${choose} />`)}
      </div>
      ${free && draft.ratio !== "match" && html`
        <div class="numbers">
          <${Side} side="width" draft=${draft} model=${model} />
          <span aria-hidden="true">×</span>
          <${Side} side="height" draft=${draft} model=${model} />
          <div class="segments small" role="group" aria-label="Megapixels">
            ${MEGAPIXELS.filter((number) => number <= Math.ceil(largest)).map(
              (number) => html`
                <button type="button" aria-pressed=${draft.megapixels === number}
                  onClick=${() => edit({ megapixels: number, ...sizeOf(shapeOf(draft), number, model) })}>${number} MP</button>`,
            )}
          </div>
        </div>`}
      ${model.options.resolution && html`
        <div class="row">
          <label class="label" for="resolution">Resolution</label>
          <select id="resolution" onChange=${(event) => edit({ resolution: event.target.value })}>
            ${model.options.resolution.choices.map((choice) => html`<option value=${choice} selected=${choice === (draft.resolution || model.options.resolution.default)}>${choice}</option>`)}
          </select>
        </div>`}
    </div>`;
}

function Chip({ name, label, on, choose }) {
  const [across, down] = name.includes(":") ? name.split(":").map(Number) : [1, 1];
  const scale = 14 / Math.max(across, down);
  return html`
    <button type="button" class="chip" aria-pressed=${on} onClick=${() => choose(name)}>
      ${name.includes(":") && html`<svg aria-hidden="true" width="16" height="16"><rect x=${8 - (across * scale) / 2} y=${8 - (down * scale) / 2} width=${across * scale} height=${down * scale} rx="1.5" /></svg>`}
      ${label}
    </button>`;
}

// What is typed stays as it is until the field is left, and snaps to the grid then.
function Side({ side, draft, model }) {
  const [typed, setTyped] = useState(null);
  const snap = () => {
    const value = snapped(Number(typed) || draft[side], model, side);
    setTyped(null);
    if (value !== draft[side]) edit({ [side]: value, ratio: "free" });
  };
  return html`<input class="side" aria-label=${`${side === "width" ? "Width" : "Height"} in pixels`} type="number" min=${model.options[side]?.minimum ?? 64}
    step=${model.options[side]?.multiple ?? model.grid} value=${typed ?? draft[side]} onInput=${(event) => setTyped(event.target.value)} onBlur=${() => typed !== null && snap()}
    onKeyDown=${(event) => event.key === "Enter" && typed !== null && snap()} />`;
}

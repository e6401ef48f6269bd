// One option of a model, as an input that allows exactly what the catalogue allows.
import { html } from "./dom.js";
import { edit } from "./draft.js";

const title = (name) => name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

export function Field({ name, option, value }) {
  const id = `option-${name}`;
  const set = (next) => edit((draft) => ({ options: { ...draft.options, [name]: next } }));
  const usual = option.default ?? "";
  if (option.type === "boolean") {
    return html`
      <div class="row">
        <label class="label" for=${id}>${title(name)}${option.note && html`<small>${option.note}</small>`}</label>
        <input id=${id} type="checkbox" role="switch" checked=${value ?? option.default ?? false} onChange=${(event) => set(event.target.checked)} />
      </div>`;
  }
  if (option.choices) {
    return html`
      <div class="row">
        <label class="label" for=${id}>${title(name)}</label>
        <select id=${id} onChange=${(event) => set(event.target.value)}>
          ${option.choices.map((choice) => html`<option value=${choice} selected=${choice === (value ?? usual)}>${choice}</option>`)}
        </select>
      </div>`;
  }
  const isNumber = option.type === "integer" || option.type === "number";
  const bounded = isNumber && option.minimum !== undefined && option.maximum !== undefined;
  if (bounded) {
    const step = option.type === "integer" ? (option.multiple ?? 1) : 0.1;
    return html`
      <div class="row wide">
        <label class="label" for=${id}>${title(name)}</label>
        <output for=${id}>${value ?? (usual === "" ? "as the model chooses" : usual)}</output>
        <input id=${id} type="range" min=${option.minimum} max=${option.maximum} step=${step} value=${value ?? (usual === "" ? option.minimum : usual)}
          onInput=${(event) => set(Number(event.target.value))} />
      </div>`;
  }
  const read = (text) => (text === "" ? undefined : isNumber ? Number(text) : text);
  return html`
    <div class="row">
      <label class="label" for=${id}>${title(name)}${option.note && html`<small>${option.note}</small>`}</label>
      <input id=${id} type=${isNumber ? "number" : "text"} min=${option.minimum} max=${option.maximum} value=${value ?? ""} placeholder=${String(usual)}
        onInput=${(event) => set(read(event.target.value))} />
    </div>`;
}

// One image in full: what it was made of, and everything that can be done with it.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./dom.js";
import { call } from "./api.js";
import { chooseModel, edit, fromTask, kindOf } from "./draft.js";
import { Icon } from "./icons.js";
import { fromTask as imageOf } from "./images.js";
import * as kept from "./kept.js";
import { add, ofTask } from "./references.js";
import { chosen, snippets } from "./snippets.js";
import { announce, drop, keep, modelOf, state, useStore } from "./store.js";
import { credits } from "./words.js";

const home = () => (location.hash = state.behind || "#/");

export function Viewer({ id }) {
  const task = useStore((s) => s.tasks.get(id));
  const [missing, setMissing] = useState("");
  const dialog = useRef(null);

  useLayoutEffect(() => {
    if (!dialog.current.open) dialog.current.showModal();
  }, []);
  useEffect(() => {
    setMissing("");
    if (!state.tasks.get(id)) call("GET", `/v1/tasks/${id}`).then((row) => keep([row])).catch((error) => setMissing(error.message));
  }, [id]);

  function onKeyDown(event) {
    if (event.target.closest("input, textarea, select, [role=tablist]")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const ready = state.newest.filter(({ status }) => status === "Ready");
    const next = step && ready[ready.findIndex((one) => one.id === id) + step];
    if (next) location.hash = `#/image/${next.id}`;
  }
  return html`
    <dialog ref=${dialog} class="viewer" aria-label="Image" onClose=${home} onKeyDown=${onKeyDown} onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
      <button type="button" class="quiet close" aria-label="Close" onClick=${() => dialog.current.close()}><${Icon} name="close" /></button>
      ${task?.status === "Ready" && !task.gone
        ? html`<figure class="full"><img src=${`/v1/tasks/${id}/image`} alt=${task.prompt || `Image by ${task.model}`} width=${task.width} height=${task.height} /></figure>
            <${Details} task=${task} key=${id} />`
        : html`<p class="gone">${missing || task?.gone ? `This image is not here: ${missing || "it is no longer kept"}. The server keeps images for a limited time.` : "Loading …"}</p>`}
    </dialog>`;
}

function Details({ task }) {
  const model = modelOf(task.model);
  const [references, setReferences] = useState([]);
  useEffect(() => {
    let urls = [];
    kept.get("references", task.id).then((found) => {
      urls = (found ?? []).map((image) => URL.createObjectURL(image.blob));
      setReferences(urls);
    });
    return () => urls.forEach((url) => URL.revokeObjectURL(url));
  }, [task.id]);
  const facts = [
    ["Model", model?.title ?? task.model],
    ["Size", `${task.width} × ${task.height}`],
    ["Seed", task.seed],
    ["Cost", task.cost === null ? "not known" : credits(task.cost)],
    ["Took", task.ended ? `${(task.ended - task.accepted).toFixed(1)} s` : "–"],
    ["Made", new Date(task.accepted * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })],
    ...Object.entries(chosen(task, model)).map(([name, value]) => [name.replaceAll("_", " "), String(value)]),
  ];
  return html`
    <div class="details">
      <h2 class="hidden">Image</h2>
      ${task.engine === "offline" && html`<p class="note">Placeholder of the offline engine, not FLUX</p>`}
      <p class="full-prompt">${task.prompt || html`<i>no prompt</i>`}</p>
      <${Actions} task=${task} model=${model} />
      <dl>${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      <${Tags} task=${task} />
      ${references.length > 0 && html`<p class="label">References</p><div class="used">${references.map((url, number) => html`<img src=${url} alt=${`Reference ${number + 1}`} />`)}</div>`}
      ${model && html`<${Snippets} task=${task} model=${model} />`}
    </div>`;
}

function Actions({ task, model }) {
  const [sure, setSure] = useState(false);
  const go = async (work, text) => {
    try {
      await work();
      location.hash = "#/";
      announce(text);
      requestAnimationFrame(() => document.getElementById("prompt")?.focus());
    } catch (error) {
      announce(error.message);
    }
  };
  const start = async (kind) => {
    const found = state.models.find((one) => kindOf(one) === kind);
    chooseModel(found.name);
    edit({ source: await imageOf(task.id), mask: null });
  };
  const reference = async () => {
    if (!model?.references) chooseModel(state.models.find((one) => one.references)?.name ?? state.draft.model);
    await add([ofTask(task.id)]);
  };
  async function forget() {
    if (!sure) return setSure(true);
    try {
      await call("DELETE", `/v1/tasks/${task.id}/image`);
      kept.remove("references", task.id);
      announce("Deleted.");
      home();
      drop(task.id);
    } catch (error) {
      announce(error.message);
    }
  }
  const has = (kind) => state.models.some((one) => kindOf(one) === kind);
  return html`
    <div class="actions">
      <button type="button" class="secondary" onClick=${() => go(() => fromTask(task), "The form has its prompt and options again.")}><${Icon} name="again" size="16" />Again</button>
      ${model?.options.seed && html`<button type="button" class="secondary" onClick=${() => go(() => fromTask(task, { seed: true }), "The form has its seed, too: change one thing and compare.")}><${Icon} name="lock" size="16" />Same seed</button>`}
      <button type="button" class="secondary" onClick=${() => go(async () => { await fromTask(task); edit({ count: 4, locked: false }); }, "Four more of this, each with a seed of its own.")}><${Icon} name="spark" size="16" />Vary</button>
      <button type="button" class="secondary" onClick=${() => go(reference, "It is a reference now.")}><${Icon} name="image" size="16" />Use as reference</button>
      ${has("fill") && html`<button type="button" class="secondary" onClick=${() => go(() => start("fill"), "Paint over what shall change.")}><${Icon} name="brush" size="16" />Edit</button>`}
      ${has("expand") && html`<button type="button" class="secondary" onClick=${() => go(() => start("expand"), "Drag the edges of the frame.")}><${Icon} name="expand" size="16" />Expand</button>`}
      <button type="button" class="secondary" onClick=${() => (location.hash = `#/compare/${task.id}`)}><${Icon} name="compare" size="16" />Compare</button>
      <a class="secondary" href=${`/v1/tasks/${task.id}/image?download`} download><${Icon} name="download" size="16" />Download</a>
      <button type="button" class=${sure ? "secondary danger" : "secondary"} onClick=${forget} onBlur=${() => setSure(false)}><${Icon} name="trash" size="16" />${sure ? "Delete it for good" : "Delete"}</button>
    </div>`;
}

function Tags({ task }) {
  const [text, setText] = useState(task.tags.join(", "));
  async function save(event) {
    event.preventDefault();
    const tags = text.split(",").map((tag) => tag.trim()).filter(Boolean);
    if (tags.join() === task.tags.join()) return;
    try {
      keep([await call("PUT", `/v1/tasks/${task.id}/tags`, { tags })]);
      announce(tags.length ? `Tagged: ${tags.join(", ")}.` : "It has no tags now.");
    } catch (error) {
      announce(error.message);
    }
  }
  return html`
    <form class="tags" onSubmit=${save}>
      <label class="label" for="tags">Tags</label>
      <input id="tags" placeholder="poster, approved" value=${text} onInput=${(event) => setText(event.target.value)} onBlur=${save} />
    </form>`;
}

function Snippets({ task, model }) {
  const texts = snippets(task, model, location.origin);
  const [shown, setShown] = useState("cURL");
  const names = Object.keys(texts);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(texts[shown]);
      announce(`Copied as ${shown}.`);
    } catch {
      // Over plain http browsers lend pages no clipboard.
      getSelection().selectAllChildren(document.getElementById("snippet"));
      announce("It is selected; copy it with your keyboard.");
    }
  };
  function onKeyDown(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = names[(names.indexOf(shown) + step + names.length) % names.length];
    setShown(next);
    requestAnimationFrame(() => document.getElementById(`tab-${next}`)?.focus());
  }
  return html`
    <div class="snippets">
      <div class="snippet-head">
        <div class="segments small" role="tablist" aria-label="Copy as" onKeyDown=${onKeyDown}>
          ${names.map((name) => html`<button type="button" role="tab" id=${`tab-${name}`} key=${name} aria-selected=${name === shown} aria-controls="snippet" tabindex=${name === shown ? 0 : -1} onClick=${() => setShown(name)}>${name}</button>`)}
        </div>
        <button type="button" class="quiet" onClick=${copy}>Copy</button>
      </div>
      <pre id="snippet" role="tabpanel" aria-labelledby=${`tab-${shown}`} tabindex="0"><code>${texts[shown]}</code></pre>
    </div>`;
}

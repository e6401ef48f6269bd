// The gallery: every image that the server still has, found by words, model and day; only what is in view is drawn.
import { html, memo, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./dom.js";
import { call } from "./api.js";
import { Card } from "./card.js";
import { Icon } from "./icons.js";
import { announce, drop, keep, useStore } from "./store.js";
import { span } from "./words.js";

const PAGE = 200;
const GAP = 12;
const CELL = 220;
const BUFFER = 3;

function startOf(day) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date).getTime() / 1000;
}

function fits(wanted) {
  const since = wanted.day ? startOf(wanted.day) : 0;
  const until = wanted.day ? since + 86400 : Infinity;
  const words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
  return ({ model, tags, accepted, prompt, stage, status, gone }) => {
    if (gone) return false;
    if (stage === "ended" && status !== "Ready") return false;
    if ((wanted.model && model !== wanted.model) || (wanted.tag && !tags.includes(wanted.tag))) return false;
    if (accepted < since || accepted >= until) return false;
    const text = words.length ? prompt.toLowerCase() : "";
    return words.every((word) => text.includes(word));
  };
}

// The models and tags that a search can ask for.
function facets(tasks) {
  const used = new Set();
  const tags = new Set();
  for (const task of tasks) {
    used.add(task.model);
    task.tags.forEach((tag) => tags.add(tag));
  }
  return { used, tags: [...tags].sort() };
}

export function Gallery() {
  const newest = useStore((s) => s.newest);
  const models = useStore((s) => s.models);
  const keepFor = useStore((s) => s.session?.keep);
  const [wanted, setWanted] = useState({ words: "", model: "", tag: "", day: "" });
  const [selected, setSelected] = useState(null); // a set of ids, or null where nothing can be selected
  const more = useMore(wanted);
  const shown = useMemo(() => newest.filter(fits(wanted)), [newest, wanted]);
  const { used, tags } = useMemo(() => facets(newest), [newest]);
  const set = (update) => setWanted({ ...wanted, ...update });
  const toggle = useCallback((id) => setSelected((now) => { const next = new Set(now); if (!next.delete(id)) next.add(id); return next; }), []);
  return html`
    <div class="gallery">
      <h1 class="hidden">Gallery</h1>
      <div class="filters" role="search">
        <label class="search"><${Icon} name="search" size="16" /><span class="hidden">Search the prompts</span>
          <input type="search" placeholder="Search the prompts" value=${wanted.words} onInput=${(event) => set({ words: event.target.value })} /></label>
        <select aria-label="Model" onChange=${(event) => set({ model: event.target.value })}>
          <option value="">All models</option>
          ${models.filter(({ name }) => used.has(name) || name === wanted.model).map((model) => html`<option value=${model.name} selected=${model.name === wanted.model}>${model.title}</option>`)}
        </select>
        ${(tags.length > 0 || wanted.tag) && html`
          <select aria-label="Tag" onChange=${(event) => set({ tag: event.target.value })}>
            <option value="">All tags</option>
            ${tags.map((tag) => html`<option value=${tag} selected=${tag === wanted.tag}>${tag}</option>`)}
          </select>`}
        <input type="date" aria-label="Day" value=${wanted.day} onInput=${(event) => set({ day: event.target.value })} />
        <button type="button" class="secondary" aria-pressed=${selected !== null} onClick=${() => setSelected(selected ? null : new Set())}>${selected ? "Done" : "Select"}</button>
      </div>
      ${selected && html`<${Selection} selected=${selected} shown=${shown} onChange=${setSelected} />`}
      ${shown.length
        ? html`<${Grid} tasks=${shown} selected=${selected} onSelect=${toggle} onEnd=${more} />`
        : html`<p class="empty">${newest.length ? "No image fits this search." : html`No images yet. <a href="#/">Make the first one.</a>`}</p>`}
      <p class="hint gallery-foot">${keepFor ? `This server keeps an image for ${span(keepFor)} after it is made.` : ""}</p>
    </div>`;
}

// Ask for older tasks, of this search alone; what was found stays when the search changes.
function useMore(wanted) {
  const asked = useRef({});
  const key = JSON.stringify(wanted);
  async function more() {
    const now = (asked.current[key] ??= { before: "", busy: false, ended: false });
    if (now.busy || now.ended) return;
    now.busy = true;
    const query = new URLSearchParams({ limit: PAGE });
    if (now.before) query.set("before", now.before);
    if (wanted.words.trim()) query.set("q", wanted.words.trim());
    if (wanted.model) query.set("model", wanted.model);
    if (wanted.tag) query.set("tag", wanted.tag);
    if (wanted.day) {
      query.set("since", startOf(wanted.day));
      query.set("until", startOf(wanted.day) + 86400);
    }
    try {
      const found = await call("GET", `/v1/tasks?${query}`);
      keep(found.tasks);
      now.before = found.tasks.at(-1)?.id ?? now.before;
      now.ended = !found.more;
    } catch (error) {
      announce(error.message);
    } finally {
      now.busy = false;
    }
  }
  useEffect(() => {
    const timer = setTimeout(more, wanted.words ? 200 : 0);
    return () => clearTimeout(timer);
  }, [key]);
  return more;
}

function Grid({ tasks, selected, onSelect, onEnd }) {
  const root = useRef(null);
  const [view, setView] = useState({ columns: 4, from: 0, to: 40, row: CELL + GAP });

  useLayoutEffect(() => {
    const measure = () => {
      const width = root.current.clientWidth;
      const columns = Math.max(2, Math.floor((width + GAP) / (CELL + GAP)));
      const row = (width - GAP * (columns - 1)) / columns + GAP;
      const above = Math.max(0, -root.current.getBoundingClientRect().top);
      const first = Math.max(0, Math.floor(above / row) - BUFFER);
      const rows = Math.ceil(innerHeight / row) + 2 * BUFFER;
      const next = { columns, row, from: first * columns, to: (first + rows) * columns };
      setView((now) => (Object.keys(next).every((name) => next[name] === now[name]) ? now : next));
    };
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(root.current);
    addEventListener("scroll", measure, { passive: true });
    return () => {
      watch.disconnect();
      removeEventListener("scroll", measure);
    };
  }, []);
  useEffect(() => {
    if (view.to >= tasks.length - view.columns * 2) onEnd();
  }, [view, tasks.length]);

  const rows = Math.ceil(tasks.length / view.columns);
  const style = { height: `${rows * view.row - GAP}px` };
  const selecting = selected !== null;
  return html`
    <div class="grid" ref=${root} style=${style}>
      ${tasks.slice(view.from, view.to).map((task, number) => {
        const [row, column] = [Math.floor((view.from + number) / view.columns), (view.from + number) % view.columns];
        return html`<${Cell} key=${task.id} task=${task} step=${view.row} row=${row} column=${column} selecting=${selecting} selected=${selecting && selected.has(task.id)} onSelect=${onSelect} />`;
      })}
    </div>`;
}

// A card at its place.  It stays as it is while others come and go, for scrolling draws only the new ones.
const Cell = memo(({ step, row, column, ...card }) => {
  const style = { top: `${row * step}px`, left: `${column * step}px`, width: `${step - GAP}px` };
  return html`<${Card} ...${card} style=${style} />`;
});

function Selection({ selected, shown, onChange }) {
  const ids = [...selected];
  const few = ids.length > 0 && ids.length <= 200;
  async function forget() {
    for (const id of ids) {
      try {
        await call("DELETE", `/v1/tasks/${id}/image`);
        drop(id);
      } catch (error) {
        announce(error.message);
      }
    }
    announce(`${ids.length} deleted.`);
    onChange(new Set());
  }
  return html`
    <div class="selection" role="toolbar" aria-label="What to do with the selected images">
      <output>${ids.length} selected</output>
      <button type="button" class="quiet" onClick=${() => onChange(new Set(shown.filter(({ status }) => status === "Ready").slice(0, 200).map(({ id }) => id)))}>Select all</button>
      <a class="secondary" aria-disabled=${!few} href=${few ? `/v1/archive?ids=${ids}` : undefined} download>ZIP</a>
      <a class="secondary" aria-disabled=${!few} href=${few ? `/v1/sheet?ids=${ids}` : undefined} download>Contact sheet</a>
      <button type="button" class="secondary" disabled=${ids.length !== 2} onClick=${() => (location.hash = `#/compare/${ids[0]}/${ids[1]}`)}>Compare</button>
      <button type="button" class="secondary danger" disabled=${!ids.length} onClick=${forget}>Delete</button>
    </div>`;
}

// The mask of a fill: painted with brush and eraser by mouse, pen, finger or arrow keys; what is painted will change.
import { html, useEffect, useRef, useState } from "./dom.js";
import { edit } from "./draft.js";
import { Icon } from "./icons.js";
import { blobOf } from "./images.js";
import { announce, state } from "./store.js";

const PAINT = "#e5484d";
const TOOLS = [
  ["brush", "Brush"],
  ["eraser", "Eraser"],
];

export function Mask({ source }) {
  const canvas = useRef(null);
  const base = useRef(null);
  const strokes = useRef([]);
  const [tool, setTool] = useState("brush");
  const [size, setSize] = useState(Math.round(Math.max(source.width, source.height) / 12));
  const [cursor, setCursor] = useState(null);
  const [count, setCount] = useState(0);
  const pen = useRef(null);

  useEffect(() => {
    strokes.current = [];
    base.current = null;
    setCount(0);
    const found = state.draft.mask;
    if (found) revive(found).then((drawn) => { base.current = drawn; redraw(); });
    else redraw();
  }, [source.id]);

  const context = () => canvas.current.getContext("2d", { willReadFrequently: true });

  function redraw() {
    if (!canvas.current) return;
    context().globalCompositeOperation = "source-over";
    context().clearRect(0, 0, source.width, source.height);
    if (base.current) context().drawImage(base.current, 0, 0);
    for (const stroke of strokes.current) draw(context(), stroke, source);
  }
  async function save() {
    setCount(strokes.current.length);
    const isEmpty = !strokes.current.length && !base.current;
    edit({ mask: isEmpty ? null : await blackAndWhite(canvas.current) });
  }
  function placed(event) {
    const box = canvas.current.getBoundingClientRect();
    return [((event.clientX - box.left) * source.width) / box.width, ((event.clientY - box.top) * source.height) / box.height];
  }
  function begin(event) {
    event.preventDefault();
    canvas.current.focus();
    canvas.current.setPointerCapture(event.pointerId);
    pen.current = { tool, size, points: [placed(event)] };
    strokes.current.push(pen.current);
    draw(context(), pen.current, source);
  }
  function go(event) {
    setCursor(placed(event));
    if (!pen.current) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) pen.current.points.push(placed(one));
    draw(context(), { ...pen.current, points: pen.current.points.slice(-8) }, source);
  }
  function finish() {
    if (!pen.current) return;
    pen.current = null;
    redraw();
    save();
  }
  function undo() {
    if (!strokes.current.pop()) return;
    redraw();
    save();
    announce("Undone.");
  }
  function invert() {
    strokes.current.push({ tool: "invert" });
    redraw();
    save();
    announce("Inverted.");
  }
  function clear() {
    strokes.current = [];
    base.current = null;
    redraw();
    save();
  }
  function onKeyDown(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const [x, y] = cursor ?? [source.width / 2, source.height / 2];
    if (move) {
      event.preventDefault();
      const step = event.shiftKey ? size : Math.max(4, size / 4);
      setCursor([Math.min(source.width, Math.max(0, x + move[0] * step)), Math.min(source.height, Math.max(0, y + move[1] * step))]);
    } else if (event.key === " ") {
      event.preventDefault();
      strokes.current.push({ tool, size, points: [[x, y]] });
      redraw();
      save();
      announce(`Painted at ${Math.round(x)}, ${Math.round(y)}.`);
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      undo();
    }
  }
  const ring = cursor && {
    left: `${(cursor[0] / source.width) * 100}%`,
    top: `${(cursor[1] / source.height) * 100}%`,
    width: `${(size / source.width) * 100}%`,
  };
  return html`
    <div class="mask">
      <div class="canvas-box" style=${{ aspectRatio: `${source.width} / ${source.height}`, maxWidth: `calc(46vh * ${source.width / source.height})` }}>
        <img src=${source.url} alt=${`The image to fill: ${source.name}`} draggable=${false} />
        <canvas ref=${canvas} width=${source.width} height=${source.height} tabindex="0" role="application"
          aria-label="Mask. Paint with the pointer, or move with the arrow keys and paint with the space bar."
          onPointerDown=${begin} onPointerMove=${go} onPointerUp=${finish} onPointerCancel=${finish} onPointerLeave=${() => !pen.current && setCursor(null)}
          onKeyDown=${onKeyDown}></canvas>
        ${ring && html`<span class="brush-ring" style=${ring} aria-hidden="true"></span>`}
      </div>
      <div class="tools" role="toolbar" aria-label="Mask tools">
        ${TOOLS.map(([name, title]) => html`<button type="button" aria-pressed=${tool === name} onClick=${() => setTool(name)}><${Icon} name=${name} size="16" />${title}</button>`)}
        <button type="button" aria-label="Invert" title="Invert" onClick=${invert}><${Icon} name="invert" size="16" /></button>
        <button type="button" aria-label="Undo" title="Undo" disabled=${count === 0} onClick=${undo}><${Icon} name="undo" size="16" /></button>
        <button type="button" aria-label="Clear the mask" title="Clear" onClick=${clear}><${Icon} name="trash" size="16" /></button>
        <label class="brush-size"><span>Size</span>
          <input type="range" min="4" max=${Math.round(Math.max(source.width, source.height) / 3)} value=${size} onInput=${(event) => setSize(Number(event.target.value))} /></label>
      </div>
    </div>`;
}

function draw(context, { tool, size, points }, { width, height }) {
  context.globalCompositeOperation = { eraser: "destination-out", invert: "xor" }[tool] ?? "source-over";
  context.fillStyle = context.strokeStyle = PAINT;
  if (tool === "invert") return context.fillRect(0, 0, width, height);
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  // A line of no length is not drawn; one that is hardly any longer makes a dot.
  for (const [x, y] of points) context.lineTo(x + 0.01, y);
  return context.stroke();
}

function copyOf(canvas) {
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  return copy;
}

// White changes and black stays; what is half covered at the edge of a stroke counts as covered.
async function blackAndWhite(canvas) {
  const copy = copyOf(canvas);
  const context = copy.getContext("2d");
  const painted = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < painted.data.length; at += 4) {
    const level = painted.data[at + 3] > 127 ? 255 : 0;
    painted.data.set([level, level, level, 255], at);
  }
  context.putImageData(painted, 0, 0);
  return blobOf(copy, "image/png");
}

async function revive(blob) {
  const bitmap = await createImageBitmap(blob);
  const copy = copyOf(bitmap);
  const context = copy.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const found = context.getImageData(0, 0, copy.width, copy.height);
  for (let at = 0; at < found.data.length; at += 4) found.data.set([0xe5, 0x48, 0x4d, found.data[at]], at);
  context.putImageData(found, 0, 0);
  return copy;
}

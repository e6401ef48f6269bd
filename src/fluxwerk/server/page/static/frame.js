// The frame of an expansion: its edges are dragged, moved by arrow keys or typed; the new size and price follow.
import { html, useRef, useState } from "./dom.js";
import { canvasOf, edit, MARGINS } from "./draft.js";

const STEP = 16;
const MOST = 2048;
const BOX = { width: 344, height: 300 };

export function Frame({ draft, model }) {
  const { source, margins } = draft;
  const canvas = canvasOf(draft, model);
  const drag = useRef(null);
  const [held, setHeld] = useState(null);
  const full = { width: source.width + margins.left + margins.right, height: source.height + margins.top + margins.bottom };
  const scale = held ?? Math.min(BOX.width / full.width, BOX.height / full.height);

  const set = (side, value) => edit((now) => ({ margins: { ...now.margins, [side]: Math.min(MOST, Math.max(0, Math.round(value))) } }));
  const snap = (side, value) => set(side, Math.round(value / STEP) * STEP);

  function begin(side, event) {
    event.preventDefault();
    event.currentTarget.setPointerCapture(event.pointerId);
    event.currentTarget.focus();
    // The picture keeps its scale while an edge moves, or the edge would run from under the pointer.
    setHeld(scale);
    drag.current = { side, x: event.clientX, y: event.clientY, from: margins[side], scale };
  }
  function go(event) {
    const { side, x, y, from, scale: at } = drag.current ?? {};
    if (!side) return;
    const way = { left: x - event.clientX, right: event.clientX - x, top: y - event.clientY, bottom: event.clientY - y }[side];
    snap(side, from + way / at);
  }
  function finish() {
    drag.current = null;
    setHeld(null);
  }
  function onKeyDown(side, event) {
    const outward = { left: "ArrowLeft", right: "ArrowRight", top: "ArrowUp", bottom: "ArrowDown" }[side];
    const inward = { left: "ArrowRight", right: "ArrowLeft", top: "ArrowDown", bottom: "ArrowUp" }[side];
    const step = event.shiftKey ? STEP * 8 : STEP;
    if (event.key === outward) snap(side, margins[side] + step);
    else if (event.key === inward) snap(side, margins[side] - step);
    else return;
    event.preventDefault();
  }
  const pixels = (value) => `${value * scale}px`;
  return html`
    <div class="frame">
      <div class="frame-box">
        <div class="frame-canvas" style=${{ width: pixels(full.width), height: pixels(full.height) }} onPointerMove=${go} onPointerUp=${finish} onPointerCancel=${finish}>
          <img src=${source.url} alt=${`The image to expand: ${source.name}`} draggable="false"
            style=${{ left: pixels(margins.left), top: pixels(margins.top), width: pixels(source.width), height: pixels(source.height) }} />
          ${MARGINS.map((side) => html`
            <button type="button" key=${side} class=${`edge ${side}`} role="slider" aria-label=${`${side} margin in pixels`} aria-valuemin="0" aria-valuemax=${MOST} aria-valuenow=${margins[side]}
              onPointerDown=${(event) => begin(side, event)} onKeyDown=${(event) => onKeyDown(side, event)}></button>`)}
        </div>
      </div>
      <p class="frame-size" aria-live="polite">New size <b>${canvas.width} × ${canvas.height}</b></p>
      <div class="margins">
        ${MARGINS.map((side) => html`
          <label key=${side}><span>${side}</span>
            <input type="number" min="0" max=${MOST} step=${STEP} value=${margins[side]} onInput=${(event) => set(side, Number(event.target.value))} /></label>`)}
      </div>
    </div>`;
}

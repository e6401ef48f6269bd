// A small plot: one or two series over time, with its axis in words for those who do not see it.
import { html, useLayoutEffect, useRef, useState } from "./dom.js";

const HEIGHT = 96;
const ROOM = 18;

export function Plot({ title, unit = "", series, names }) {
  const box = useRef(null);
  const [width, setWidth] = useState(320);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);

  const values = series.flat().filter((value) => value !== null);
  const top = niceAbove(Math.max(...values, 0) || 1);
  const count = Math.max(2, ...series.map((one) => one.length));
  const x = (at, length) => ((count - length + at) / (count - 1)) * width;
  const y = (value) => ROOM + (1 - value / top) * (HEIGHT - ROOM - 2);
  const line = (one) =>
    one.map((value, at) => (value === null ? "" : `${at && one[at - 1] !== null ? "L" : "M"}${x(at, one.length).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const area = (one) => (one.length > 1 && !one.includes(null) ? `${line(one)}L${x(one.length - 1, one.length)} ${HEIGHT}L${x(0, one.length)} ${HEIGHT}Z` : "");
  const now = series.map((one) => one.at(-1));
  const words = names.map((name, at) => `${name} ${now[at] ?? "none"}${unit}`).join(", ");
  return html`
    <figure class="plot">
      <figcaption><span>${title}</span>${names.map((name, at) => html`<b key=${name} data-series=${at}>${now[at] ?? "–"}${now[at] === null || now[at] === undefined ? "" : unit} <small>${name}</small></b>`)}</figcaption>
      <div ref=${box}>
        <svg role="img" aria-label=${`${title}: ${words}`} width=${width} height=${HEIGHT} viewBox=${`0 0 ${width} ${HEIGHT}`}>
          <line class="rule" x1="0" x2=${width} y1=${ROOM} y2=${ROOM} /><line class="rule" x1="0" x2=${width} y1=${HEIGHT - 1} y2=${HEIGHT - 1} />
          <text x="0" y="12">${round(top)}${unit}</text>
          ${series.map((one, at) => html`<path key=${at} class="area" data-series=${at} d=${area(one)} /><path class="line" data-series=${at} d=${line(one)} />`)}
        </svg>
      </div>
    </figure>`;
}

const round = (value) => Number(value.toPrecision(2));

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= value);
}

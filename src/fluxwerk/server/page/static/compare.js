// Two images over each other, with a slider between before and after.
import { html, useLayoutEffect, useRef, useState } from "./dom.js";
import { thumbnail } from "./card.js";
import { Icon } from "./icons.js";
import { state, useStore } from "./store.js";

export function Compare({ before, after }) {
  const dialog = useRef(null);
  const newest = useStore((s) => s.newest);
  const [share, setShare] = useState(50);
  const ready = newest.filter(({ status }) => status === "Ready");
  const first = state.tasks.get(before);
  // By default beside the image with the same prompt or size that is nearest in the list.
  const near = ready.filter(({ id }) => id !== before);
  const second = state.tasks.get(after) ?? near.find((one) => one.prompt === first?.prompt) ?? near.find((one) => one.width === first?.width && one.height === first?.height) ?? near[0];

  useLayoutEffect(() => {
    if (!dialog.current.open) dialog.current.showModal();
  }, []);
  const choose = (id) => (location.hash = `#/compare/${before}/${id}`);
  return html`
    <dialog ref=${dialog} class="viewer comparing" aria-label="Compare two images" onClose=${() => (location.hash = state.behind || "#/")}>
      <button type="button" class="quiet close" aria-label="Close" onClick=${() => dialog.current.close()}><${Icon} name="close" /></button>
      ${first && second
        ? html`
          <div class="compare-stage">
            <div class="compare" style=${{ "--share": `${share}%`, aspectRatio: `${first.width} / ${first.height}` }}>
              <img src=${`/v1/tasks/${second.id}/image`} alt=${`After: ${second.prompt}, seed ${second.seed}`} />
              <img class="before" src=${`/v1/tasks/${first.id}/image`} alt=${`Before: ${first.prompt}, seed ${first.seed}`} />
              <span class="divider" aria-hidden="true"></span>
              <span class="side-name left" aria-hidden="true">seed ${first.seed}</span><span class="side-name right" aria-hidden="true">seed ${second.seed}</span>
              <input type="range" min="0" max="100" value=${share} aria-label="How much of the first image is shown" onInput=${(event) => setShare(Number(event.target.value))} />
            </div>
          </div>
          <div class="details">
            <h2>Compare</h2>
            <p class="full-prompt">${first.prompt}</p>
            <p class="label" id="with">with</p>
            <div class="strip" role="group" aria-labelledby="with">
              ${near.slice(0, 24).map((one) => html`<button type="button" key=${one.id} aria-pressed=${one.id === second.id} aria-label=${`Compare with: ${one.prompt}, seed ${one.seed}`} onClick=${() => choose(one.id)}><img src=${thumbnail(one.id)} alt="" /></button>`)}
            </div>
          </div>`
        : html`<p class="gone">There is no second image to compare it with yet; make another one.</p>`}
    </dialog>`;
}

// The first visit: what this server paints with, and something to begin with.
import { html } from "./dom.js";
import { edit } from "./draft.js";
import { useStore } from "./store.js";

const BEGINNINGS = [
  "A lighthouse on a basalt cliff, last light, long exposure, 35 mm",
  "Product photograph of a glass teapot on travertine, soft window light",
  "Risograph poster of a heron in reeds, two inks, generous margins",
];

export function Welcome() {
  const engine = useStore((s) => s.session?.engine);
  return html`
    <div class="welcome">
      <h2>Make your first image</h2>
      ${engine === "offline"
        ? html`<p>This server paints placeholders with its offline engine: abstract pictures that need no key and cost nothing, and are not FLUX.
            For real images connect your key with <code>fluxwerk serve --engine upstream</code>, or your own weights with <code>--engine diffusers</code>; this page stays the same.</p>`
        : html`<p>Describe an image on the left and press the button; the price is shown before.</p>`}
      <ul>
        ${BEGINNINGS.map((prompt) => html`<li><button type="button" onClick=${() => { edit({ prompt }); document.getElementById("prompt")?.focus(); }}>${prompt}</button></li>`)}
      </ul>
    </div>`;
}

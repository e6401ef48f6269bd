// Advice on the prompt, folded away: one line says how much there is, and each piece can be applied or left.
import { html, useEffect, useState } from "./dom.js";
import { call } from "./api.js";
import { edit, usedReferences } from "./draft.js";
import { Icon } from "./icons.js";

const PAUSE = 500;
// The advice, and the prompt that it was given on: its places are those of no other.
const NONE = { prompt: "", advice: [] };

export function Advice({ draft, model }) {
  const [found, setFound] = useState(NONE);
  const images = usedReferences(draft, model).length;
  useEffect(() => {
    const prompt = draft.prompt.trim();
    if (!prompt) {
      setFound(NONE);
      return undefined;
    }
    let current = true;
    const timer = setTimeout(async () => {
      try {
        const { advice } = await call("POST", "/v1/advice", { model: model.name, prompt: draft.prompt, images, options: draft.options });
        if (current) setFound({ prompt: draft.prompt, advice });
      } catch {
        // An image is made without advice as well.
        if (current) setFound(NONE);
      }
    }, PAUSE);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [draft.prompt, model.name, images]);
  const { advice } = found;
  if (!advice.length) return null;

  // The server counts characters, and a script counts halves of some of them.
  const letters = [...draft.prompt];
  function apply({ start, end, mend }) {
    const prompt = [...letters.slice(0, start), mend, ...letters.slice(end)].join("");
    const step = [...mend].length - (end - start);
    // What is left keeps its place in the new text, until the server has read that.
    const before = advice.filter((one) => one.end <= start);
    const behind = advice.filter((one) => one.start >= end).map((one) => ({ ...one, start: one.start + step, end: one.end + step }));
    setFound({ prompt, advice: [...before, ...behind] });
    edit({ prompt });
  }
  return html`
    <details class="advice">
      <summary><${Icon} name="spark" size="15" />${advice.length === 1 ? "One piece of advice" : `${advice.length} pieces of advice`}</summary>
      <ul>
        ${advice.map((one) => html`
          <li key=${`${one.rule}${one.start}`}>
            <span>${one.message}</span>
            ${one.mend !== null && html`<button type="button" class="link" disabled=${found.prompt !== draft.prompt} onClick=${() => apply(one)}>${one.mend.trim() ? html`Write <q>${one.mend.trim()}</q>` : "Take it out"}</button>`}
          </li>`)}
      </ul>
    </details>`;
}

// Advice on the prompt, folded away: one line says how much there is, and each piece can be applied or left.
import { html, useEffect, useState } from "./dom.js";
import { call } from "./api.js";
import { edit, usedReferences } from "./draft.js";
import { Icon } from "./icons.js";

const PAUSE = 500;

export function Advice({ draft, model }) {
  const [found, setFound] = useState([]);
  const images = usedReferences(draft, model).length;
  useEffect(() => {
    const prompt = draft.prompt.trim();
    if (!prompt) {
      setFound([]);
      return undefined;
    }
    let current = true;
    const timer = setTimeout(async () => {
      try {
        const { advice } = await call("POST", "/v1/advice", { model: model.name, prompt: draft.prompt, images, options: draft.options });
        if (current) setFound(advice);
      } catch {
        // An image is made without advice as well.
        if (current) setFound([]);
      }
    }, PAUSE);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [draft.prompt, model.name, images]);
  if (!found.length) return null;

  // The server counts characters, and a script counts halves of some of them.
  const letters = [...draft.prompt];
  const apply = ({ start, end, mend }) => edit({ prompt: [...letters.slice(0, start), mend, ...letters.slice(end)].join("") });
  return html`
    <details class="advice">
      <summary><${Icon} name="spark" size="15" />${found.length === 1 ? "One piece of advice" : `${found.length} pieces of advice`}</summary>
      <ul>
        ${found.map((one) => html`
          <li key=${`${one.rule}${one.start}`}>
            <span>${one.message}</span>
            ${one.mend !== null && html`<button type="button" class="link" onClick=${() => apply(one)}>${one.mend.trim() ? html`Write <q>${one.mend.trim()}</q>` : "Take it out"}</button>`}
          </li>`)}
      </ul>
    </details>`;
}

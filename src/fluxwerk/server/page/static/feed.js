// The newest images, in groups that share a prompt, beside the form that makes them.
import { html, useMemo } from "./dom.js";
import { Card, Sending } from "./card.js";
import { fromTask } from "./draft.js";
import { Icon } from "./icons.js";
import { modelOf, useStore } from "./store.js";
import { ago, credits } from "./words.js";
import { Welcome } from "./welcome.js";

const MOST_GROUPS = 24;

function grouped(newest) {
  const groups = [];
  for (const task of newest) {
    const last = groups.at(-1);
    const first = last?.tasks[0];
    const isSame = first && first.prompt === task.prompt && first.model === task.model && first.width === task.width &&
      first.height === task.height && first.accepted - task.accepted < 30;
    if (isSame) last.tasks.push(task);
    else if (groups.length < MOST_GROUPS) groups.push({ key: task.id, tasks: [task] });
    else break;
  }
  return groups;
}

export function Feed() {
  const newest = useStore((s) => s.newest);
  const sending = useStore((s) => s.sending);
  const groups = useMemo(() => grouped(newest), [newest]);
  if (!groups.length && !sending.length) return html`<${Welcome} />`;
  return html`
    <div class="feed">
      <h2 class="hidden">Your newest images</h2>
      ${sending.length > 0 && html`<section class="group"><div class=${`cards of-${Math.min(4, sending.length)}`}>${sending.map((entry) => html`<${Sending} key=${entry.key} entry=${entry} />`)}</div></section>`}
      ${groups.map(({ tasks: group }) => html`<${Group} key=${group.at(-1).id} tasks=${group} />`)}
      ${newest.length > MOST_GROUPS && html`<p class="hint"><a href="#/gallery">Older images are in the gallery.</a></p>`}
    </div>`;
}

// What the group cost in the end, or is estimated to cost while it runs.
function costOf(tasks) {
  const known = tasks.map(({ cost }) => cost).filter((cost) => cost !== null);
  if (!known.length) return "price not public";
  const total = known.reduce((sum, cost) => sum + cost, 0);
  return `${tasks.every(({ stage }) => stage === "ended") ? "" : "about "}${credits(total)}`;
}

function Group({ tasks }) {
  const [first] = tasks;
  return html`
    <section class="group" aria-label=${first.prompt || first.model}>
      <header>
        <p class="group-prompt">${first.prompt || html`<i>no prompt</i>`}</p>
        <p class="group-facts">
          <span>${modelOf(first.model)?.title ?? first.model}</span><span>${first.width} × ${first.height}</span><span>${costOf(tasks)}</span><span>${ago(first.accepted)}</span>
          <button type="button" class="link" onClick=${() => fromTask(first)}><${Icon} name="again" size="14" />Use again</button>
        </p>
      </header>
      <div class=${`cards of-${Math.min(4, tasks.length)}`}>${[...tasks].reverse().map((task) => html`<${Card} key=${task.id} task=${task} />`)}</div>
    </section>`;
}

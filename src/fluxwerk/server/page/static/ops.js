// The operator's page: the queue, how long things take, how they end and what they cost, live.
import { html, render, useEffect, useState } from "./dom.js";
import { call } from "./api.js";
import { Icon } from "./icons.js";
import { Plot } from "./plot.js";
import { announce, useStore } from "./store.js";
import { themed, toggleTheme } from "./theme.js";
import { credits, round } from "./words.js";

const LOOK_EVERY = 2000;
const REMEMBERED = 150;

function App() {
  const [history, setHistory] = useState([]);
  const [refusal, setRefusal] = useState(null);
  const [turn, setTurn] = useState(0);
  const notice = useStore((s) => s.notice);

  useEffect(() => {
    let timer;
    const look = async () => {
      try {
        const now = await call("GET", "/v1/ops");
        setHistory((known) => [...known, now].slice(-REMEMBERED));
        setRefusal(null);
      } catch (error) {
        setRefusal(error);
        if (error.status === 403 || error.status === 401) return;
      }
      timer = setTimeout(look, LOOK_EVERY);
    };
    look();
    return () => clearTimeout(timer);
  }, [turn]);

  const now = history.at(-1);
  return html`
    <${Header} now=${now} />
    ${refusal?.status === 0 && html`<p class="banner" role="alert">The server does not answer; this page asks again every two seconds.</p>`}
    <main id="main" class="ops">
      <h1 class="hidden">Operations</h1>
      ${refusal && refusal.status !== 0 ? html`<${Key} refusal=${refusal} onDone=${() => setTurn(turn + 1)} />` : now && html`<${Numbers} now=${now} history=${history} />`}
    </main>
    <p class="toast" role="status" aria-live="polite" data-shown=${Boolean(notice)}>${notice}</p>`;
}

function Header({ now }) {
  const theme = useStore((s) => s.theme);
  return html`
    <header class="bar">
      <a class="brand" href="/"><img src="/page/icon.svg" alt="" width="24" height="24" />fluxwerk</a>
      <nav aria-label="Views"><a href="/">Studio</a><a href="/ops" aria-current="page">Operations</a></nav>
      <div class="bar-right">
        ${now && html`<span class="pill" data-good=${now.engine.serving}>${now.engine.name ?? "workers"} · ${now.engine.state.replace("_", " ")}</span>`}
        <button type="button" class="quiet" aria-label=${theme === "dark" ? "Light colours" : "Dark colours"} onClick=${toggleTheme}><${Icon} name=${theme === "dark" ? "sun" : "moon"} /></button>
      </div>
    </header>`;
}

const picked = (history, path) => history.map((entry) => path.split(".").reduce((found, name) => found?.[name] ?? null, entry));
const sum = (counts) => Object.values(counts ?? {}).reduce((total, count) => total + count, 0);

function Numbers({ now, history }) {
  const rate = history.map((entry, at) => {
    const before = history[at - 1];
    return before ? round(((sum(entry.ended) - sum(before.ended)) / Math.max(1, entry.at - before.at)) * 60) : null;
  });
  return html`
    ${now.storage && html`<p class="banner" role="alert">${now.storage}</p>`}
    <section class="tiles-row" aria-label="At this moment">
      <${Tile} name="Queued" value=${now.queued} />
      <${Tile} name="Running" value=${now.running} />
      <${Tile} name="Ready" value=${now.ended.Ready ?? 0} />
      <${Tile} name="Ended otherwise" value=${sum(now.failures)} bad=${sum(now.failures) > 0} />
      <${Tile} name="Webhooks waiting" value=${(now.webhooks.waiting ?? 0) + (now.webhooks.pending ?? 0)} />
      <${Tile} name="Spent" value=${credits(Number(now.spent))} />
    </section>
    <section class="plots" aria-label="Since this page was opened">
      <${Plot} title="Queue" names=${["queued", "running"]} series=${[picked(history, "queued"), picked(history, "running")]} />
      <${Plot} title="Ended" unit="/min" names=${["all"]} series=${[rate]} />
      <${Plot} title="Render time" unit=" s" names=${["p50", "p95"]} series=${[picked(history, "render_seconds.p50"), picked(history, "render_seconds.p95")]} />
      <${Plot} title="Wait for the engine" unit=" s" names=${["p50", "p95"]} series=${[picked(history, "wait_seconds.p50"), picked(history, "wait_seconds.p95")]} />
    </section>
    <section class="tables">
      <${Table} title="Slots" heads=${["pool", "held", "slots a key"]} rows=${now.slots.map((row) => [row.pool, row.held, row.slots_per_key])} />
      <${Table} title="Workers" heads=${["worker", "engine", "models", "last sign"]} rows=${workersOf(now)} />
      <${Table} title="Failures by kind" heads=${["kind", "tasks"]} rows=${Object.entries(now.failures)} empty="Nothing has failed." />
      <${Table} title="Refused submits" heads=${["HTTP status", "answers"]} rows=${Object.entries(now.refused)} empty="Nothing was refused." />
      <${Table} title="Webhooks" heads=${["state", "webhooks"]} rows=${Object.entries(now.webhooks)} empty="No task has asked for one." />
      <${Table} title="In doubt" heads=${["task", "model", "since", ""]} rows=${doubtsOf(now)} empty="No submit is in doubt." />
      <${Table} wide title="Budgets" heads=${["application", "budget", "period", "spent in all"]} rows=${now.budgets.map((row) => [row.name, credits(Number(row.budget)), row.period, credits(Number(row.spent_in_all))])} empty="No application has a budget; fluxwerk keys add gives one." />
      <${Table} wide title="Spend by key, model and day" heads=${["day", "key", "model", "tasks", "credits"]} rows=${now.spend.map((row) => [row.day, row.name, row.model, row.tasks, round(Number(row.credits))])} empty="Nothing was spent." />
    </section>`;
}

function workersOf(now) {
  if (!now.workers.length) return [["in this process", `${now.engine.name}, ${now.engine.state}`, "all", "now"]];
  return now.workers.map((worker) => [worker.name.slice(0, 12), worker.engine ?? worker.kind, worker.models.join(", ") || "none", `${worker.silent_seconds} s ago`]);
}

function doubtsOf(now) {
  const settle = (task, verdict) =>
    call("POST", `/v1/ops/doubts/${task.id}`, { verdict }).then(() => announce(`Settled: ${verdict}.`)).catch((error) => announce(error.message));
  return now.doubts.map((task) => [
    html`<span title=${task.reason}>${task.id.slice(0, 8)}</span>`,
    task.model,
    new Date(task.since * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }),
    html`<span class="verdicts"><button type="button" class="secondary" onClick=${() => settle(task, "charged")}>Charged</button><button type="button" class="secondary" onClick=${() => settle(task, "not charged")}>Not charged</button></span>`,
  ]);
}

const Tile = ({ name, value, bad = false }) => html`<div class="number-tile" data-bad=${bad}><p class="label">${name}</p><p class="figure">${value}</p></div>`;

function Table({ title, heads, rows, empty = "None.", wide = false }) {
  return html`
    <section class=${wide ? "panel wide-panel" : "panel"} aria-label=${title}>
      <h2>${title}</h2>
      ${rows.length
        ? html`<div class="scroll" tabindex="0" role="group" aria-label=${`${title}, as a table`}><table><thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
            <tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>`
        : html`<p class="hint">${empty}</p>`}
    </section>`;
}

function Key({ refusal, onDone }) {
  const [key, setKey] = useState("");
  const [wrong, setWrong] = useState("");
  async function send(event) {
    event.preventDefault();
    try {
      await call("POST", "/v1/ops", { key });
      setKey("");
      onDone();
    } catch (error) {
      setWrong(error.message);
    }
  }
  return html`
    <form class="key" onSubmit=${send}>
      <h1>The operator's page</h1>
      <p>${refusal.message}</p>
      <label class="label" for="key">Operator key</label>
      <input id="key" type="password" autocomplete="off" required value=${key} onInput=${(event) => setKey(event.target.value)} aria-describedby="key-wrong" />
      <p id="key-wrong" class="hint wrong" role="alert">${wrong}</p>
      <button type="submit" class="primary">Open</button>
    </form>`;
}

themed();
render(html`<${App} />`, document.getElementById("app"));

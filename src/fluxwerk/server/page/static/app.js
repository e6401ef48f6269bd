// The studio: who is there, what is shown, and the frame around it.
import { html, render, useEffect, useRef, useState } from "./dom.js";
import { call, isAway } from "./api.js";
import { Compare } from "./compare.js";
import { Composer } from "./composer.js";
import { restore } from "./draft.js";
import { Feed } from "./feed.js";
import { Gallery } from "./gallery.js";
import { Icon } from "./icons.js";
import * as kept from "./kept.js";
import { ASK_EVERY, listen } from "./news.js";
import { change, refresh, refreshSession, state, useStore } from "./store.js";
import { themed, toggleTheme } from "./theme.js";
import { Viewer } from "./viewer.js";
import { round } from "./words.js";

const MODAL = /^#\/(image|compare)\//;

addEventListener("hashchange", () => {
  if (!MODAL.test(location.hash)) state.behind = location.hash;
  change({ route: location.hash });
});
state.behind = MODAL.test(location.hash) ? "" : location.hash;

async function start() {
  await refreshSession();
  if (!state.session.signed_in && state.session.keyless) {
    await signIn();
    await refreshSession();
  }
  if (state.session.signed_in) await open();
  else change({ online: true });
}

// Begin until it is done: a server that goes away meanwhile does not leave half a page behind.
async function begin() {
  for (;;) {
    try {
      await start();
      return;
    } catch (error) {
      if (!isAway(error)) throw error;
      change({ online: false });
      await new Promise((resolve) => setTimeout(resolve, ASK_EVERY));
    }
  }
}

const signIn = (key = undefined) => call("POST", "/v1/session", key ? { key } : {});

async function open() {
  const [{ models }] = await Promise.all([call("GET", "/v1/models"), refresh()]);
  const served = models.filter((model) => model.served);
  change({ models: served.length ? served : models });
  await restore();
  listen();
}

function App() {
  const session = useStore((s) => s.session);
  const route = useStore((s) => s.route);
  const online = useStore((s) => s.online);
  const notice = useStore((s) => s.notice);
  const [broken, setBroken] = useState("");

  const enter = () => begin().catch((error) => setBroken(error.message));
  useEffect(() => {
    enter();
  }, []);

  const [, place, one, other] = route.split("/");
  const isGallery = (MODAL.test(route) ? state.behind : route).startsWith("#/gallery");
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>To the content</a>
    <${Header} session=${session} isGallery=${isGallery} />
    ${!online && html`<p class="banner" role="alert">The server does not answer. What was accepted goes on there; this page connects again by itself.</p>`}
    <main id="main" tabindex="-1" class=${isGallery ? "wide" : "split"}>
      ${broken && html`<p class="empty" role="alert">${broken} Load the page again.</p>`}
      ${session?.signed_in && (isGallery ? html`<${Gallery} />` : html`<h1 class="hidden">Make images</h1><${Composer} /><div class="stage"><${Feed} /></div>`)}
      ${session && !session.signed_in && !session.keyless && html`<${Key} onKnown=${enter} />`}
    </main>
    ${session?.signed_in && place === "image" && html`<${Viewer} id=${one} />`}
    ${session?.signed_in && place === "compare" && html`<${Compare} before=${one} after=${other} />`}
    <p class="toast" role="status" aria-live="polite" data-shown=${Boolean(notice)}>${notice}</p>`;
}

function Header({ session, isGallery }) {
  const theme = useStore((s) => s.theme);
  async function leave() {
    await call("DELETE", "/v1/session");
    await kept.clear();
    location.reload();
  }
  return html`
    <header class="bar">
      <a class="brand" href="#/"><img src="/page/icon.svg" alt="" width="24" height="24" />fluxwerk</a>
      <nav aria-label="Views">
        <a href="#/" aria-current=${isGallery ? undefined : "page"}>Make</a>
        <a href="#/gallery" aria-current=${isGallery ? "page" : undefined}>Gallery</a>
      </nav>
      <div class="bar-right">
        ${session?.engine === "offline" && html`<span class="pill" title="The offline engine paints placeholders, not FLUX.">offline · placeholders</span>`}
        ${session?.signed_in && !session.keyless && html`<span class="balance">${round(session.credits)} credits</span>`}
        <button type="button" class="quiet" aria-label=${theme === "dark" ? "Light colours" : "Dark colours"} onClick=${toggleTheme}><${Icon} name=${theme === "dark" ? "sun" : "moon"} /></button>
        ${session?.signed_in && !session.keyless && html`<button type="button" class="quiet" onClick=${leave}>Sign out</button>`}
      </div>
    </header>`;
}

// Only what the server says of the key is said in the form: once the key is known, the page begins as it always does.
function Key({ onKnown }) {
  const [key, setKey] = useState("");
  const [wrong, setWrong] = useState("");
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  async function send(event) {
    event.preventDefault();
    try {
      await signIn(key);
      setKey("");
      setWrong("");
      onKnown();
    } catch (error) {
      setWrong(error.message);
    }
  }
  return html`
    <form class="key" onSubmit=${send}>
      <h1>Connect your key</h1>
      <p>This server opens an account for a key that it knows. The key is exchanged once for a session that no script of this page can read.</p>
      <label class="label" for="key">Key</label>
      <input id="key" ref=${field} type="password" autocomplete="off" spellcheck=${false} required value=${key} onInput=${(event) => setKey(event.target.value)} aria-describedby="key-wrong" />
      <p id="key-wrong" class="hint wrong" role="alert">${wrong}</p>
      <button type="submit" class="primary">Connect</button>
    </form>`;
}

themed();
render(html`<${App} />`, document.getElementById("app"));

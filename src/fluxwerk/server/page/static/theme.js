// Light or dark: as the system has it, until a person chooses; only the choice is kept.
import { change } from "./store.js";

const CHOICE = "fluxwerk-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function chosen() {
  try {
    return localStorage.getItem(CHOICE);
  } catch {
    return null;
  }
}

export function themed() {
  const theme = chosen() ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  change({ theme });
}

export function toggleTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(CHOICE, next);
  } catch {
    // Then it lasts until the page is left.
  }
  themed();
}

system.addEventListener("change", themed);

// What every component needs of the libraries, in one place.
import { h, render, createElement, Fragment } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { h, render, createElement, Fragment, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback };

// The component, rendered again only when one of its properties is another one.
export function memo(component) {
  function differs(next) {
    return Object.keys(next).some((name) => next[name] !== this.props[name]);
  }
  return function Kept(props) {
    this.shouldComponentUpdate = differs;
    return h(component, props);
  };
}

// A UUID; over plain http browsers offer no ready one.
export function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

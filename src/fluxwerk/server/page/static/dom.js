// What every component needs of the libraries, in one place.
import { h, render, createElement, Fragment } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { h, render, createElement, Fragment, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback };

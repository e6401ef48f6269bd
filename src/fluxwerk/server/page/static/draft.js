// The draft: what the next image shall be, as far as the chosen model can take it, and the request that follows.
import { change, modelOf, state } from "./store.js";
import { base64, revived } from "./images.js";
import * as kept from "./kept.js";

export const RATIOS = ["1:1", "4:5", "3:4", "2:3", "9:16", "5:4", "4:3", "3:2", "16:9", "21:9"];
export const MARGINS = ["top", "right", "bottom", "left"];
const MEGAPIXEL = 1024 * 1024;
const PREFERRED = ["flux-2-pro", "flux-2-klein-4b"];
// Options that have a place of their own in the page.
const PLACED = ["prompt", "width", "height", "aspect_ratio", "resolution", "seed", "output_format", ...MARGINS,
  "reference_offset_x", "reference_offset_y"];

const fresh = () => ({
  model: "",
  prompt: "",
  width: 1024,
  height: 1024,
  megapixels: 1,
  ratio: "1:1",
  resolution: "",
  seed: "",
  locked: false,
  count: 1,
  format: "",
  options: {},
  references: [],
  source: null,
  mask: null,
  margins: { top: 0, right: 256, bottom: 0, left: 256 },
});

state.draft = fresh();

let saving;
export function edit(update) {
  change({ draft: { ...state.draft, ...(typeof update === "function" ? update(state.draft) : update) } });
  clearTimeout(saving);
  saving = setTimeout(save, 150);
}

export function save() {
  clearTimeout(saving);
  return kept.put("draft", "draft", strip(state.draft));
}
addEventListener("pagehide", save);

export async function restore() {
  const found = await kept.get("draft", "draft");
  if (found) {
    const source = found.source && revived(found.source);
    change({ draft: { ...fresh(), ...found, source, references: found.references.map(revived) } });
  }
  if (!modelOf(state.draft.model)) {
    const model = PREFERRED.map(modelOf).find(Boolean) ?? state.models[0];
    if (model) edit({ model: model.name });
  }
}

const strip = (draft) => ({
  ...draft,
  references: draft.references.map((image) => ({ ...image, url: "" })),
  source: draft.source && { ...draft.source, url: "" },
});

// What a model is for: an image from words, a part painted anew, more image around one, or one image changed.
export function kindOf(model) {
  if (!model) return "create";
  if (model.output === "margins" || model.output === "canvas") return "expand";
  if (model.options.image && model.options.mask) return "fill";
  return "create";
}

export const sourceField = (model) => (model.output === "canvas" ? "input_image" : model.options.image ? "image" : null);

// The fields that take images, in the order in which a prompt may name them.
export function slotsOf(model) {
  if (!model || kindOf(model) !== "create") return [];
  if (model.references && model.reference_field === "images") return Array(model.references).fill("images");
  if (model.references) {
    return Array.from({ length: model.references }, (_, n) => model.reference_field + (n ? `_${n + 1}` : ""));
  }
  if (model.options.person) return ["person", "garment"];
  if (model.options.image) return ["image"];
  return model.options.image_prompt ? ["image_prompt"] : [];
}

export function otherOptions(model) {
  const images = ["image", "images"];
  return Object.entries(model.options).filter(([name, option]) => !PLACED.includes(name) && !images.includes(option.type));
}

export const formatsOf = (model) => model.options.output_format?.choices ?? [];

export const snapped = (value, model, side) => {
  const option = model.options[side] ?? {};
  const grid = option.multiple ?? model.grid;
  const least = Math.ceil((option.minimum ?? 64) / grid) * grid;
  const most = option.maximum ?? 4096;
  return Math.min(Math.floor(most / grid) * grid, Math.max(least, Math.round(value / grid) * grid));
};

// Width and height of a ratio at so many megapixels, on the model's grid and within its bounds.
export function sizeOf(ratio, megapixels, model) {
  const [across, down] = ratio.split(":").map(Number);
  let width = snapped(Math.sqrt((megapixels * MEGAPIXEL * across) / down), model, "width");
  let height = snapped(Math.sqrt((megapixels * MEGAPIXEL * down) / across), model, "height");
  const most = Math.min(model.maximum_pixels ?? Infinity, 4 * MEGAPIXEL);
  while (width * height > most) {
    if (width >= height) width -= model.grid;
    else height -= model.grid;
  }
  return { width, height };
}

// A size that was typed is a shape, too.
export const shapeOf = (draft) => (draft.ratio.includes(":") ? draft.ratio : `${draft.width}:${draft.height}`);

export function chooseModel(name) {
  const model = modelOf(name);
  edit((draft) => {
    const options = Object.fromEntries(Object.entries(draft.options).filter(([option]) => model.options[option]));
    const update = { model: name, options };
    if (model.output === "size" && draft.ratio !== "match") Object.assign(update, sizeOf(shapeOf(draft), draft.megapixels, model));
    if (draft.ratio === "match" && !model.references) Object.assign(update, { ratio: "1:1", ...sizeOf("1:1", 1, model) });
    if (!formatsOf(model).includes(draft.format)) update.format = "";
    return update;
  });
}

// The canvas of an expansion: the source with its margins, whole megapixels and the grid respected.
export function canvasOf(draft, model) {
  const { source, margins } = draft;
  if (!source) return null;
  let width = source.width + margins.left + margins.right;
  let height = source.height + margins.top + margins.bottom;
  if (model.output === "canvas") {
    width = Math.floor(width / model.grid) * model.grid;
    height = Math.floor(height / model.grid) * model.grid;
  }
  return { width, height };
}

// The fields that set a size, without the images: enough for a price.
export function sizeFields(draft, model) {
  const fields = {};
  if (model.output === "margins") for (const side of MARGINS) fields[side] = draft.margins[side];
  if (model.output === "canvas") {
    const canvas = canvasOf(draft, model) ?? { width: 1024, height: 1024 };
    Object.assign(fields, canvas, { reference_offset_x: draft.margins.left, reference_offset_y: draft.margins.top });
  }
  if (model.output === "size" && draft.ratio !== "match") Object.assign(fields, { width: draft.width, height: draft.height });
  if (model.options.aspect_ratio && draft.ratio !== "match" && model.output !== "size") fields.aspect_ratio = draft.ratio;
  if (model.options.resolution && draft.resolution) fields.resolution = draft.resolution;
  return fields;
}

export const usedReferences = (draft, model) => draft.references.slice(0, slotsOf(model).length);

export function inputSizes(draft, model) {
  const images = sourceField(model) && kindOf(model) !== "create" ? [draft.source].filter(Boolean) : usedReferences(draft, model);
  return images.map(({ width, height }) => [width, height]);
}

// What is missing before this can be sent, as a sentence; empty if nothing is.
export function missing(draft, model) {
  if (!model) return "This server has no model.";
  if (kindOf(model) !== "create" && !draft.source) return "Add the image to start from.";
  if (kindOf(model) === "fill" && !draft.mask) return "Paint over what shall change.";
  const slots = slotsOf(model);
  const needed = slots.filter((name) => model.options[name]?.required).length;
  if (draft.references.length < needed) return `Add ${needed === 1 ? "an image" : `${needed} images`} to start from.`;
  if (model.options.prompt && !draft.prompt.trim() && kindOf(model) === "create") return "Describe the image first.";
  return "";
}

export async function requestOf(draft, model) {
  const fields = { ...sizeFields(draft, model) };
  if (model.options.prompt && draft.prompt.trim()) fields.prompt = draft.prompt.trim();
  if (model.options.seed && draft.locked && draft.seed !== "") fields.seed = Number(draft.seed);
  if (draft.format && formatsOf(model).includes(draft.format)) fields.output_format = draft.format;
  for (const [name] of otherOptions(model)) {
    const value = draft.options[name];
    if (value !== undefined && value !== "") fields[name] = value;
  }
  const references = [];
  if (kindOf(model) !== "create") {
    fields[sourceField(model)] = await base64(draft.source.blob);
    if (kindOf(model) === "fill") fields.mask = await base64(draft.mask);
    references.push(draft.source);
  } else {
    const slots = slotsOf(model);
    for (const [number, image] of usedReferences(draft, model).entries()) {
      const text = await base64(image.blob);
      if (slots[number] === "images") (fields.images ??= []).push(text);
      else fields[slots[number]] = text;
      references.push(image);
    }
  }
  const size = model.output === "size" ? { width: draft.width, height: draft.height } : canvasOf(draft, model);
  return { model: model.name, path: model.path, fields, size, references: references.map((image) => ({ ...image, url: "" })) };
}

// Take a task's request up again; its references are in this browser alone.
export async function fromTask(task, { seed = false, prompt = true } = {}) {
  const model = modelOf(task.model);
  const references = ((await kept.get("references", task.id)) ?? []).map(revived);
  const create = kindOf(model) === "create";
  edit((draft) => ({
    model: model ? model.name : draft.model,
    prompt: prompt ? task.prompt : draft.prompt,
    width: task.width,
    height: task.height,
    ratio: model?.output === "size" ? nearest(task) : (task.options?.aspect_ratio ?? nearest(task)),
    resolution: task.options?.resolution ?? "",
    megapixels: Math.max(1, Math.round((task.width * task.height) / MEGAPIXEL)),
    seed: seed ? String(task.seed) : draft.seed,
    locked: seed,
    format: task.output_format,
    options: Object.fromEntries(Object.entries(task.options ?? {}).filter(([name]) => !PLACED.includes(name))),
    references: create && references.length ? references : draft.references,
    source: create ? draft.source : (references[0] ?? draft.source),
    count: 1,
  }));
}

function nearest({ width, height }) {
  const shape = (ratio) => ratio.split(":").reduce((across, down) => across / down);
  const found = RATIOS.reduce((a, b) => (Math.abs(shape(a) - width / height) <= Math.abs(shape(b) - width / height) ? a : b));
  return Math.abs(shape(found) - width / height) < 0.05 ? found : "free";
}

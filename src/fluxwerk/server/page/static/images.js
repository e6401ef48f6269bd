// Images that a person gives: read, turned upright, scaled if they are too large, and shown at their size.
import { fetchBlob } from "./api.js";
import { unique } from "./dom.js";

const MEGAPIXEL = 1024 * 1024;
const TAKEN = ["image/png", "image/jpeg", "image/webp"];
const LARGEST_BYTES = 20_000_000;

// `most` is the number of megapixels that the model uses; more is only sent, not seen.
export async function read(blob, { name = "image", most = 4 } = {}) {
  if (!blob.type.startsWith("image/")) throw new Error(`${name} is not an image; PNG, JPEG and WebP are taken.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} cannot be read; PNG, JPEG and WebP are taken.`);
  }
  const notes = [];
  const share = Math.min(1, Math.sqrt((most * MEGAPIXEL) / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.floor(bitmap.width * share));
  const height = Math.max(1, Math.floor(bitmap.height * share));
  if (share < 1) notes.push(`scaled from ${bitmap.width} × ${bitmap.height}`);
  const upright = await hasExif(blob);
  let data = blob;
  if (share < 1 || upright || !TAKEN.includes(blob.type) || blob.size > LARGEST_BYTES) {
    data = await drawn(bitmap, width, height, blob.type === "image/png" ? "image/png" : "image/jpeg");
  }
  bitmap.close();
  return { id: unique(), blob: data, url: URL.createObjectURL(data), width, height, name, note: notes.join(", ") };
}

export async function fromTask(id) {
  return read(await fetchBlob(`/v1/tasks/${id}/image`), { name: `image ${id.slice(0, 8)}`, most: 20 });
}

export async function fromUrl(url, most) {
  return read(await fetchBlob("/v1/fetch", { url }), { name: new URL(url).hostname, most });
}

export const revived = (image) => ({ ...image, url: URL.createObjectURL(image.blob) });

export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}

export function filesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

// A photograph's EXIF may turn it, and says where it was taken: drawing it anew leaves both behind.
async function hasExif(blob) {
  if (blob.type !== "image/jpeg") return false;
  const head = new Uint8Array(await blob.slice(0, 65536).arrayBuffer());
  for (let at = 2; at + 10 < head.length && head[at] === 0xff; at += 2 + head[at + 2] * 256 + head[at + 3]) {
    if (head[at + 1] === 0xe1 && String.fromCharCode(...head.subarray(at + 4, at + 8)) === "Exif") return true;
  }
  return false;
}

async function drawn(bitmap, width, height, type) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  return blobOf(canvas, type);
}

export const blobOf = (canvas, type) => new Promise((resolve) => canvas.toBlob(resolve, type, 0.93));

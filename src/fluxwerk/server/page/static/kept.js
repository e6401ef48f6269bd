// What outlives a reload in this browser alone: the draft, submits without an answer, and the references of tasks,
// which the server does not keep once an image is made.
const STORES = ["draft", "sending", "references"];

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("fluxwerk", 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function run(store, mode, work) {
  try {
    const database = await open();
    return await new Promise((resolve, reject) => {
      const request = work(database.transaction(store, mode).objectStore(store));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } catch {
    // A private window may refuse to keep anything; the page works without.
    return undefined;
  }
}

export const put = (store, key, value) => run(store, "readwrite", (table) => table.put(value, key));
export const get = (store, key) => run(store, "readonly", (table) => table.get(key));
export const remove = (store, key) => run(store, "readwrite", (table) => table.delete(key));
export const all = async (store) => (await run(store, "readonly", (table) => table.getAll())) ?? [];
export const clear = () => Promise.all(STORES.map((store) => run(store, "readwrite", (table) => table.clear())));

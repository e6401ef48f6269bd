// Tests with Vitest; Jest runs them too, with `import { afterAll, beforeAll, expect, test } from "@jest/globals"`.
import { afterAll, beforeAll, expect, test } from "vitest";

import { startServer } from "./server.mjs";

let server;

beforeAll(async () => {
  server = await startServer();
}, 30_000);

afterAll(() => server.stop());

async function submit(prompt) {
  const answer = await fetch(`${server.url}/v1/flux-2-klein-4b`, {
    method: "POST",
    headers: { "x-key": "any-key", "content-type": "application/json" },
    body: JSON.stringify({ prompt, width: 256, height: 256 }),
  });
  return answer.json();
}

async function wait(task) {
  for (;;) {
    const poll = await fetch(task.polling_url, { headers: { "x-key": "any-key" } });
    const status = await poll.json();
    if (status.status !== "Pending") return status;
    await new Promise((later) => setTimeout(later, 50));
  }
}

test("a prompt becomes an image", async () => {
  const status = await wait(await submit("a red mug"));
  expect(status.status).toBe("Ready");
  const image = await fetch(status.result.sample);
  expect(image.headers.get("content-type")).toMatch(/^image\//);
});

test("the server tells which tasks it has seen", async () => {
  const task = await submit("a blue mug");
  const seen = await fetch(`${server.url}/v1/tasks`, { headers: { "x-key": "any-key" } });
  expect(JSON.stringify(await seen.json())).toContain(task.id);
});

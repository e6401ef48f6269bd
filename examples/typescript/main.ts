// npm start -- "A red fox" fox.png        with BFL_API_KEY, and BFL_BASE_URL for another server
// npm start -- --verify hook.json "sha256=…"        with BFL_WEBHOOK_SECRET

import { readFileSync, writeFileSync } from 'node:fs';
import { Client, readWebhook, verifyWebhook } from './client.js';

const [first = 'A serene mountain landscape at sunset', second = 'image.png', third = ''] = process.argv.slice(2);

if (first === '--verify') {
  const body = readFileSync(second);
  const proven = verifyWebhook(body, { 'X-BFL-Signature': third }, process.env['BFL_WEBHOOK_SECRET'] ?? '');
  const { id, status } = proven ? readWebhook(body) : {};
  console.log(JSON.stringify({ proven, id, status }));
  process.exitCode = proven ? 0 : 1;
} else {
  const image = await new Client().generate('flux-2-pro', { prompt: first, width: 512, height: 256, output_format: 'png' });
  writeFileSync(second, image.data);
  console.log(JSON.stringify({ file: second, type: image.type, seed: image.status.seed, cost: image.status.cost }));
}

// OpenAI's package for JavaScript, which LibreChat, LobeHub and n8n use; the base URL is a setting of its own.
import { readFileSync, writeFileSync } from 'node:fs';
import OpenAI, { toFile } from 'openai';

const folder = process.argv[2];
const settings = { baseURL: `${process.env.BFL_BASE_URL}/v1`, maxRetries: 0 };
const client = new OpenAI({ ...settings, apiKey: process.env.BFL_API_KEY });
const facts = { node: process.version };
const keep = (name, one) => writeFileSync(`${folder}/${name}`, Buffer.from(one.b64_json, 'base64'));
const photo = () => toFile(readFileSync(`${folder}/photo.png`), 'photo.png', { type: 'image/png' });

facts.models = (await client.models.list()).data.map((model) => model.id);
const made = await client.images.generate({ model: 'dall-e-3', prompt: 'a red fox', size: '512x256', n: 2 });
made.data.forEach((one, number) => keep(`made-${number}.png`, one));
const edited = await client.images.edit({ model: 'flux-2-pro', prompt: 'at night', image: [await photo()] });
keep('edited.png', edited.data[0]);
const mask = await toFile(readFileSync(`${folder}/mask.png`), 'mask.png', { type: 'image/png' });
const filled = await client.images.edit({ model: 'flux-2-pro', prompt: 'a lake', image: await photo(), mask });
keep('filled.png', filled.data[0]);
const stream = await client.images.generate({ model: 'flux-2-pro', prompt: 'a fox', size: '256x256', stream: true });
facts.events = [];
for await (const event of stream) facts.events.push(event.type);

try {
  await client.images.generate({ model: 'dall-e-2', prompt: 'a red fox' });
} catch (error) {
  facts.refusal = `${error.constructor.name}: ${error.status} ${error.code}`;
}
console.log(JSON.stringify(facts));

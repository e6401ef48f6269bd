// Vercel's AI SDK with its provider for BFL; `baseURL` is a setting of its own, and it trusts that origin.
import { createBlackForestLabs } from '@ai-sdk/black-forest-labs';
import { generateImage } from 'ai';
import { readFileSync, writeFileSync } from 'node:fs';

const folder = process.argv[2];
const settings = { baseURL: `${process.env.BFL_BASE_URL}/v1`, apiKey: process.env.BFL_API_KEY };
const bfl = createBlackForestLabs(settings);
const facts = { node: process.version };

async function make(name, order) {
  const { image, providerMetadata, warnings } = await generateImage({ maxRetries: 0, ...order });
  writeFileSync(`${folder}/${name}`, image.uint8Array);
  facts[name] = { type: image.mediaType, cost: providerMetadata?.blackForestLabs?.images?.[0]?.cost, warnings: warnings.length };
}

await make('sized.png', {
  model: bfl.image('flux-2-pro'),
  prompt: 'a red fox',
  size: '512x256',
  seed: 7,
  providerOptions: { blackForestLabs: { outputFormat: 'png' } },
});
await make('shaped.png', {
  model: bfl.image('flux-kontext-pro'),
  prompt: 'a red fox',
  aspectRatio: '1:1',
  providerOptions: { blackForestLabs: { outputFormat: 'png' } },
});
await make('edited.png', {
  model: bfl.image('flux-2-pro'),
  prompt: { text: 'make it night', images: [readFileSync(`${folder}/photo.png`)] },
  providerOptions: { blackForestLabs: { outputFormat: 'png' } },
});
// With a webhook it still wants a polling URL, which the live service's OpenAPI does not promise.
await make('hooked.png', {
  model: bfl.image('flux-2-pro'),
  prompt: 'a red fox',
  size: '256x256',
  providerOptions: {
    blackForestLabs: { outputFormat: 'png', webhookUrl: 'https://app.example/hooks', webhookSecret: 'a-secret' },
  },
});

try {
  const stranger = createBlackForestLabs({ ...settings, apiKey: 'no key at all' });
  await generateImage({ model: stranger.image('flux-2-pro'), prompt: 'a red fox', maxRetries: 0 });
} catch (error) {
  facts.refusal = `${error.name}: ${error.statusCode}: ${error.message}`;
}
console.log(JSON.stringify(facts));

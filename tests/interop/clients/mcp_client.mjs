// The official SDK of the Model Context Protocol for TypeScript, over stdio.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const [folder, python, source] = process.argv.slice(2);
const transport = new StdioClientTransport({
  command: python,
  args: ['-m', 'fluxwerk', 'mcp', '--offline', '-o', folder],
  env: { ...process.env, PYTHONPATH: source },
});
const client = new Client({ name: 'interop', version: '1' });
await client.connect(transport);
const steps = [];
const { tools } = await client.listTools();
const made = await client.callTool(
  { name: 'generate', arguments: { prompt: 'a red fox', width: 512, height: 256, output_format: 'png' } },
  undefined,
  { onprogress: (step) => steps.push(step.message) },
);
await client.close();
console.log(
  JSON.stringify({
    tools: tools.map((tool) => tool.name),
    steps,
    images: made.structuredContent.images,
    blocks: made.content.map((block) => block.type),
  }),
);

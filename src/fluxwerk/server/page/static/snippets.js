// The same request for other places: cURL, Python, TypeScript and the command line.
const MARGIN = "  ";

// The options that were chosen: what a model does by itself is not worth repeating.
export function chosen(task, model) {
  return Object.fromEntries(Object.entries(task.options ?? {}).filter(([name, value]) => value !== model?.options[name]?.default));
}

function fieldsOf(task, model) {
  const fields = { prompt: task.prompt, ...chosen(task, model) };
  if (!("aspect_ratio" in fields) && !("resolution" in fields)) Object.assign(fields, { width: task.width, height: task.height });
  return { ...fields, seed: task.seed, output_format: task.output_format };
}

function honoured(fields, model) {
  return Object.fromEntries(Object.entries(fields).filter(([name, value]) => model.options[name] && value !== "" && value !== null));
}

const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
// JSON is Python but for three words.
const python = (value) => ({ true: "True", false: "False", null: "None" })[String(value)] ?? JSON.stringify(value);

const FLAGS = ["width", "height", "aspect_ratio", "seed", "safety_tolerance", "steps", "guidance"];

const flagOf = ([name, value]) =>
  FLAGS.includes(name) ? `--${name.replaceAll("_", "-")} ${quoted(value)}` : `--option ${quoted(`${name}=${value}`)}`;

export function snippets(task, model, origin) {
  const fields = honoured(fieldsOf(task, model), model);
  const body = JSON.stringify(fields, null, 2);
  const { prompt, ...rest } = fields;
  const options = Object.entries(rest);
  const flags = options.filter(([name]) => name !== "output_format").map((option) => ` \\\n${MARGIN}${flagOf(option)}`).join("");
  return {
    cURL: `curl ${quoted(origin + model.path)} \\\n${MARGIN}-H "x-key: $BFL_API_KEY" -H 'content-type: application/json' \\\n${MARGIN}-d ${quoted(body)}`,
    Python: [
      "from fluxwerk import Client",
      "",
      `with Client(base_url=${JSON.stringify(origin)}) as client:`,
      "    image = client.generate(",
      `        ${JSON.stringify(prompt ?? "")},`,
      `        model=${JSON.stringify(model.name)},`,
      ...options.map(([name, value]) => `        ${name}=${python(value)},`),
      "    )",
      `    image.save("image.${task.output_format}")`,
    ].join("\n"),
    TypeScript: [
      `const submitted = await fetch(${JSON.stringify(origin + model.path)}, {`,
      '  method: "POST",',
      '  headers: { "x-key": process.env.BFL_API_KEY!, "content-type": "application/json" },',
      `  body: JSON.stringify(${body.replaceAll("\n", "\n  ")}),`,
      "});",
      "const { polling_url } = await submitted.json();",
      "let status: { status: string; result?: { sample: string } };",
      "do {",
      "  await new Promise((resolve) => setTimeout(resolve, 500));",
      "  status = await (await fetch(polling_url)).json();",
      '} while (status.status === "Pending");',
      "console.log(status.result?.sample);",
    ].join("\n"),
    CLI: `fluxwerk generate ${quoted(prompt ?? "")} \\\n${MARGIN}--model ${model.name}${flags} \\\n${MARGIN}--base-url ${origin} -o image.${task.output_format}`,
  };
}

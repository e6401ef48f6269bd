// A fluxwerk server as a child process, for tests in JavaScript: `pip install "fluxwerk[cli,server]"` brings it.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

// Start a server on a free port; more words are options, such as "--strict" or "--trouble", "trouble.toml".
export async function startServer(...words) {
  const child = spawn("fluxwerk", ["serve", "--port", "0", ...words], { stdio: ["ignore", "ignore", "pipe"] });
  const said = [];
  const url = await new Promise((ready, failed) => {
    child.once("error", failed);
    child.once("exit", () => failed(new Error(`fluxwerk serve has ended: ${said.join("\n")}`)));
    createInterface({ input: child.stderr }).on("line", (line) => {
      said.push(line);
      const found = line.match(/serves the BFL API at (\S+)/);
      if (found) ready(found[1]);
    });
  });
  return { url, stop: () => child.kill() };
}

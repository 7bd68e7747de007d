// HTTP on Node: a server that gives back what it's sent, and clients that keep their connections.
//
//   http.js serve HOST PORT
//   http.js ask HOST PORT     "done", once all had back what they sent
const http = require("http");

const CLIENTS = 20;
const QUESTIONS = 40;
const [what, host, port] = process.argv.slice(2);

function ask(agent, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent, host, port, method: "POST" }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => (Buffer.concat(parts).equals(body) ? resolve() : reject(new Error("another answer"))));
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function client(seed) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (let turn = 0; turn < QUESTIONS; turn++) {
    await ask(agent, Buffer.alloc(1 + ((seed * 7919 + turn * 104729) % 90000), `${seed} ${turn} `));
  }
  agent.destroy();
}

if (what === "serve") {
  http.createServer((request, response) => request.pipe(response)).listen(port, host);
} else {
  Promise.all(Array.from({ length: CLIENTS }, (_, seed) => client(seed))).then(
    () => console.log("done"),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}

// A WebSocket client that a test drives by lines: Node's `ws` is the transport, the test has the protocol.
//
//   node client.js URL
//
// stdin    b HEX         send a binary message           stdout   open [EXTENSIONS]
//          f HEX HEX...  send one in fragments                    b HEX          a binary message
//          t TEXT        send a text message                      pong HEX
//          p HEX         send a ping                              close CODE REASON
//          c             close with 1000                          error TEXT
"use strict";

const readline = require("node:readline");
const WebSocket = require("ws");

const say = (line) => process.stdout.write(`${line}\n`);
const bytes = (hex) => Buffer.from(hex || "", "hex");

const socket = new WebSocket(process.argv[2]); // offers permessage-deflate, as it does by itself

socket.on("open", () => say(`open ${socket.extensions}`.trim()));
socket.on("message", (data, isBinary) => say(isBinary ? `b ${data.toString("hex")}` : `t ${data}`));
socket.on("pong", (data) => say(`pong ${data.toString("hex")}`));
socket.on("error", (error) => say(`error ${error.message}`));
socket.on("close", (code, reason) => {
  say(`close ${code} ${reason}`);
  process.stdin.destroy();
});

readline.createInterface({ input: process.stdin, terminal: false }).on("line", (line) => {
  const [order, ...words] = line.split(" ");
  if (order === "b") {
    socket.send(bytes(words[0]));
  } else if (order === "f") {
    words.forEach((word, at) => socket.send(bytes(word), { binary: true, fin: at === words.length - 1 }));
  } else if (order === "t") {
    socket.send(words.join(" "));
  } else if (order === "p") {
    socket.ping(bytes(words[0]));
  } else if (order === "c") {
    socket.close(1000);
  }
}).on("close", () => socket.terminate());

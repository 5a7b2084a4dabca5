// A listener as a browser has it: the official client, told by its argument where and how to connect. It prints what
// happens as JSON lines, with the time in milliseconds since the epoch, and ends with its standard input.
import { io } from "socket.io-client";

const { url, options, says } = JSON.parse(process.argv[2]);
const print = (event, data) =>
  console.log(JSON.stringify({ event, data, at_ms: performance.timeOrigin + performance.now() }));

const socket = io(url, options);
socket.io.engine.on("upgrade", (transport) => print("upgrade", { transport: transport.name }));
socket.on("connect", () => {
  print("connect", null);
  if (says) socket.emit(says, { from: "a client" });
});
socket.on("connect_error", (error) => print("connect_error", { message: error.message }));
socket.on("disconnect", (reason) => print("disconnect", { reason }));
socket.onAny((event, data) => print(event, data));

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

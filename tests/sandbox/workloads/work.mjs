// Node: files, children, worker threads, watching, servers, cryptography.
import assert from 'node:assert';
import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { Worker } from 'node:worker_threads';
import { gunzipSync, gzipSync } from 'node:zlib';

fs.writeFileSync('a', 'text');
fs.cpSync('a', 'b');
fs.renameSync('b', 'c');
console.log(fs.readFileSync('c', 'utf8'));

console.log(execFileSync('echo', ['from a child'], { encoding: 'utf8' }).trim());
const shell = spawn('sh', ['-c', 'read line; echo "heard $line"']);
shell.stdin.end('words\n');
console.log(String((await once(shell.stdout, 'data'))[0]).trim());

const worker = new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true });
console.log((await once(worker, 'message'))[0]);

const watcher = fs.watch('.');
const seen = once(watcher, 'change');
fs.writeFileSync('watched', '');
console.log((await seen)[0]);
watcher.close();

const server = http.createServer((_, answer) => answer.end('served')).listen(0, '127.0.0.1');
await once(server, 'listening');
console.log(await (fetchText(server.address().port)));
server.close();

const local = net.createServer((peer) => peer.end('local')).listen('./socket');
await once(local, 'listening');
console.log(String((await once(net.connect('./socket'), 'data'))[0]));
local.close();

console.log(createHash('sha256').update('x').digest('hex').slice(0, 8), randomBytes(4).length);
console.log(String(gunzipSync(gzipSync('packed'))));
assert.throws(() => fs.readFileSync('/no/such/file'), /ENOENT/);

function fetchText(port) {
  return new Promise((resolve, reject) => {
    http.get({ port, host: '127.0.0.1' }, (answer) => answer.on('data', (data) => resolve(String(data)))).on('error', reject);
  });
}

// says:
// text
// from a child
// heard words
// 42
// rename
// served
// local
// 2d711642 4
// packed

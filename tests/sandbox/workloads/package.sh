# A package from a registry on the sandbox's own loopback, with a script of its own.
mkdir -p package server consumer
echo '{ "name": "tiny", "version": "1.0.0", "main": "index.js", "scripts": { "install": "echo installed > ran" } }' > package/package.json
echo 'module.exports = "from the registry";' > package/index.js
tar -czf server/tiny.tgz package
cat > registry.js <<'X'
const fs = require('fs'), http = require('http'), crypto = require('crypto');
const archive = fs.readFileSync('server/tiny.tgz');
const server = http.createServer((request, response) => {
  if (request.url.endsWith('.tgz')) return response.end(archive);
  const integrity = 'sha512-' + crypto.createHash('sha512').update(archive).digest('base64');
  const tarball = `http://127.0.0.1:${server.address().port}/tiny.tgz`;
  const version = { name: 'tiny', version: '1.0.0', hasInstallScript: true, scripts: { install: 'echo installed > ran' }, dist: { tarball, integrity } };
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ name: 'tiny', 'dist-tags': { latest: '1.0.0' }, versions: { '1.0.0': version } }));
});
server.listen(0, '127.0.0.1', () => fs.writeSync(1, `${server.address().port}\n`));
X
mkfifo port
node registry.js > port & registry=$!
read -r number < port
cd consumer
echo '{ "name": "consumer", "version": "1.0.0" }' > package.json
npm install --registry "http://127.0.0.1:$number" --no-audit --no-fund --loglevel=error tiny > said 2>&1 || { cat said; exit 1; }
node -p 'require("tiny")'
cat node_modules/tiny/ran
kill $registry
# says:
# from the registry
# installed

/** Makes the publishable package in dist/: compiled sources, the bin, the demo model, a manifest without development parts. */
import { execFileSync } from 'node:child_process';
import { cpSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');
const dist = path.join(root, 'dist');

rmSync(dist, { recursive: true, force: true });
const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
execFileSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });

const verbatim = ['cli/meshnode.js', 'README.md', 'LICENSE', 'CHANGELOG.md'];
for (const file of [...verbatim, ...globSync('{node,protocols}/**/*.{gguf,md}', { cwd: root })]) {
  if (!file.includes('/training/')) cpSync(path.join(root, file), path.join(dist, file));
}
rmSync(path.join(dist, 'node/backends/llama-cpp/demo/training'), { recursive: true, force: true });

const {
  scripts: _s,
  devDependencies: _d,
  optionalDependencies: _o,
  allowScripts: _a,
  ...manifest
} = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as Record<string, unknown>;
const published = { ...manifest, exports: { '.': './node/index.js' }, engines: { node: '>=22.18' } };
writeFileSync(path.join(dist, 'package.json'), `${JSON.stringify(published, null, 2)}\n`);

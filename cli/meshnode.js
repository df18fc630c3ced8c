#!/usr/bin/env node
// Plain JavaScript that Node 12.20 and later can parse: it runs meshnode on this Node when that is new enough, else on
// the Node that `npm ci` brought along (package `node`), else it says in one line what is missing.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NEEDED = [22, 18];
const HERE = dirname(fileURLToPath(import.meta.url));

function isNewEnough(version) {
  const parts = version.split('.').map(Number);
  return parts[0] > NEEDED[0] || (parts[0] === NEEDED[0] && parts[1] >= NEEDED[1]);
}

/** The binary of the nearest installed package `node` that is new enough, or null. */
function findBroughtNode() {
  for (let at = HERE; ; at = dirname(at)) {
    const home = join(at, 'node_modules', 'node');
    const binary = join(home, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
    if (existsSync(binary) && isNewEnough(JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')).version)) {
      return binary;
    }
    if (dirname(at) === at) return null;
  }
}

/**
 * Runs this file again on `binary`. The IPC channel ties the two lives together: the child leaves when it closes. It
 * carries the signals too, because a Ctrl-C of the terminal reaches both processes: a second, forwarded signal would
 * look like a second Ctrl-C, whereas the child can tell a note about a signal from the signal itself.
 */
function runOn(binary) {
  const child = spawn(binary, [fileURLToPath(import.meta.url)].concat(process.argv.slice(2)), {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
  });
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  signals.forEach((signal) => {
    process.on(signal, () => {
      // A child that is already gone needs no note; its exit ends this process.
      if (child.connected) child.send({ forwardedSignal: signal }, () => {});
    });
  });
  child.on('error', (error) => fail(`cannot run ${binary}: ${error.message}`));
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    signals.forEach((name) => {
      process.removeAllListeners(name);
    });
    process.kill(process.pid, signal);
  });
}

function runHere() {
  quietExperiments();
  const main = existsSync(join(HERE, 'main.ts')) ? './main.ts' : './main.js';
  import(main)
    .then((module) => module.main(process.argv.slice(2)))
    .then(
      (code) => {
        process.exitCode = code;
        // Whatever was left open must not keep a command that is done from ending.
        setTimeout(() => process.exit(), 500).unref();
      },
      (error) => fail(error instanceof Error ? error.stack : String(error)),
    );
}

/** Node 22 announces on stderr that type stripping and SQLite are new; people who run meshnode cannot act on it. */
function quietExperiments() {
  const printers = process.listeners('warning');
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    if (warning.name === 'ExperimentalWarning') return;
    printers.forEach((print) => {
      print.call(process, warning);
    });
  });
}

function fail(message) {
  process.stderr.write(`meshnode: ${message}\n`);
  process.exit(1);
}

if (isNewEnough(process.versions.node)) {
  runHere();
} else {
  const binary = findBroughtNode();
  if (binary !== null) runOn(binary);
  else {
    fail(
      `needs Node.js ${NEEDED.join('.')} or newer and this is ${process.versions.node}: run "npm ci" in the checkout ` +
        '(it brings one along), or install Node.js 24 from https://nodejs.org',
    );
  }
}

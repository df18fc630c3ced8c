/** Which llama.cpp this node's engine is, learnt without loading native code. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * For example `llama.cpp v0.5.0`. Part of what makes two nodes' engines twins.
 *
 * @throws when node-llama-cpp is not installed.
 */
export function engineBuild(): string {
  const release = new URL('../llama/binariesGithubRelease.json', import.meta.resolve('node-llama-cpp'));
  const parsed = JSON.parse(readFileSync(fileURLToPath(release), 'utf8')) as { release: string };
  return `llama.cpp ${parsed.release}`;
}

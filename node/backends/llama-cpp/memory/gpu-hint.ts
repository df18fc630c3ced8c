/** Might llama.cpp find a GPU? Asked before native code is loaded, so it may say yes where there is none, never the reverse. */
import { existsSync } from 'node:fs';
import type { GpuChoice } from '../ipc.ts';

/** Devices that Linux shows for NVIDIA, AMD, WSL and anything with a render node. */
const LINUX_DEVICES = ['/dev/nvidiactl', '/dev/kfd', '/dev/dxg', '/dev/dri/renderD128'];

export interface GpuHintFacts {
  readonly platform: NodeJS.Platform;
  readonly exists: (path: string) => boolean;
}

export function mayUseGpu(
  choice: GpuChoice,
  { platform, exists }: GpuHintFacts = { platform: process.platform, exists: existsSync },
): boolean {
  if (choice !== 'auto') return choice !== 'off';
  return platform !== 'linux' || LINUX_DEVICES.some(exists);
}

/** What an engine child may see of the environment: what native code and GPU drivers need, and no secrets. */
const NEEDED = [
  'PATH',
  'HOME',
  'LANG',
  'TMPDIR',
  'TEMP',
  'TMP',
  'SystemRoot',
  'windir',
  'USERPROFILE',
  'LOCALAPPDATA',
  'APPDATA',
  'ProgramData',
  'LD_LIBRARY_PATH',
  'DYLD_LIBRARY_PATH',
  'XDG_CONFIG_DIRS',
  'XDG_DATA_DIRS',
  'XDG_RUNTIME_DIR',
];
/** CUDA, NVIDIA, Vulkan, ROCm, Metal and ggml itself. */
const NEEDED_PREFIXES = ['CUDA_', 'NVIDIA_', 'VK_', 'HIP_', 'ROCR_', 'HSA_', 'MTL_', 'GGML_'];

/** `cores` sizes the thread pool on which decodes and sampling run beside file and DNS work. */
export function childEnvironment(parent: NodeJS.ProcessEnv, cores: number): NodeJS.ProcessEnv {
  const kept = Object.entries(parent).filter(
    ([name]) => NEEDED.includes(name) || NEEDED_PREFIXES.some((prefix) => name.startsWith(prefix)),
  );
  // More arenas than two keep memory that nobody uses, a little in each. And what loading needed once goes back: glibc
  // raises both of these thresholds, and keeps the more, unless they are set.
  return {
    ...Object.fromEntries(kept),
    MALLOC_ARENA_MAX: '2',
    MALLOC_MMAP_THRESHOLD_: `${128 * 2 ** 10}`,
    MALLOC_TRIM_THRESHOLD_: `${2 ** 20}`,
    UV_THREADPOOL_SIZE: String(Math.min(16, Math.max(4, cores))),
  };
}

/** Resolves as soon as `holds`: looks now and after each change, without a bound of its own. */
export function untilChange(
  source: { onChange(listener: () => void): () => void },
  holds: () => boolean,
): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (!holds()) return;
      off();
      resolve();
    };
    const off = source.onChange(look);
    look();
  });
}

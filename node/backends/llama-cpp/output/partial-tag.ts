/** Length of the longest end of `text` that begins one of `tags` without completing it. */
export function beginningAtEnd(text: string, tags: readonly string[]): number {
  let longest = 0;
  for (const tag of tags) {
    for (let length = Math.min(tag.length - 1, text.length); length > longest; length -= 1) {
      if (text.endsWith(tag.slice(0, length))) longest = length;
    }
  }
  return longest;
}

/** How many blanks stand before position `end` of `text`. */
export function trailingBlanks(text: string, end: number): number {
  return end - text.slice(0, end).trimEnd().length;
}

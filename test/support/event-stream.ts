/** Server-sent events as their specification reads them: lines, `data:` fields, a blank line. */

/** The data of each event. */
export function eventData(stream: string): string[] {
  const found: string[] = [];
  let data: string[] = [];
  for (const line of stream.split(/\r\n|\r|\n/)) {
    if (line === '' && data.length > 0) {
      found.push(data.join('\n'));
      data = [];
    } else if (line.startsWith('data:')) data.push(line.slice('data:'.length).replace(/^ /, ''));
  }
  return found;
}

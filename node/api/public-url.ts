/** URLs of HTTP nodes as they may be shown. */

/** A registered URL has no credentials; should some slip in, they are taken out. Null for none, and for what is no URL. */
export function publicUrl(url: string | undefined): string | null {
  if (url === undefined || !URL.canParse(url)) return null;
  const parsed = new URL(url);
  if (parsed.username === '' && parsed.password === '') return url;
  parsed.username = '';
  parsed.password = '';
  return parsed.href;
}

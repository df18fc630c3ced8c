/** RFC 7807 answers as the stand-in manager gives them. */

/** Thrown by handlers; the server turns it into `application/problem+json`. */
export class Problem extends Error {
  readonly status: number;
  readonly slug: string;
  readonly title: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, slug: string, title: string, msg = '', headers: Readonly<Record<string, string>> = {}) {
    super(msg);
    this.status = status;
    this.slug = slug;
    this.title = title;
    this.headers = headers;
  }

  get body(): object {
    const type = `https://api.backend.ai/probs/${this.slug}`;
    return this.message === '' ? { type, title: this.title } : { type, title: this.title, msg: this.message };
  }
}

export const badParameters = (msg: string): Problem =>
  new Problem(400, 'invalid-api-params', 'Missing or invalid API parameters.', msg);

export const noSuch = (what: 'session' | 'endpoint' | 'folder', msg: string): Problem =>
  new Problem(404, `${what}-not-found`, `No such ${what}.`, msg);

export const quotaExceeded = (msg: string): Problem =>
  new Problem(412, 'quota-exceeded', 'You have reached your resource limit.', msg);

export const forbidden = (msg: string): Problem =>
  new Problem(403, 'generic-forbidden', 'You are not allowed to do this.', msg);

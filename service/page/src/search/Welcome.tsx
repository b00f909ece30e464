import { plural } from "../lib/format";
import { Icon } from "../parts/Icon";
import { useHere } from "../session";
import { SavedSearches } from "./SavedSearches";
import { useWork } from "./workspace";

const EXAMPLES = [
  "a woman in a blue dress with a red handbag",
  "a man in an orange jacket carrying a white backpack",
  "green cap, black top, green skirt and black boots",
  "somebody in a red and white striped shirt",
];

export function Welcome() {
  const { run, question } = useWork();
  const { cameras } = useHere();
  const images = cameras.reduce((sum, camera) => sum + camera.images, 0);
  return (
    <section className="welcome">
      <h2>Who are you looking for?</h2>
      <p className="muted">Say what the person wears and carries, or drop a picture anywhere on this page.</p>
      <ul aria-label="Examples">
        {EXAMPLES.map((text) => (
          <li key={text}>
            <button type="button" onClick={() => void run({ ...question, text })}>
              <Icon name="search" />
              {text}
            </button>
          </li>
        ))}
      </ul>
      <div className="row">
        <SavedSearches />
        {images > 0 && (
          <p className="small muted figures">
            {plural(images, "image")} from {plural(cameras.length, "camera")}
          </p>
        )}
      </div>
    </section>
  );
}

// How the page says things: numbers, times, states and what to do about them.
const CENT = 0.01;

export function credits(amount) {
  if (amount === null || amount === undefined) return "price not public";
  return `${round(amount)} ${amount === 1 ? "credit" : "credits"}`;
}

export const dollars = (amount) => `$${(amount * CENT).toFixed(amount * CENT < 0.1 ? 3 : 2)}`;

export const round = (amount) => Number(amount.toFixed(2)).toLocaleString("en", { maximumFractionDigits: 2 });

export function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  if (passed < 60) return "just now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(seconds * 1000).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
}

export function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} seconds`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} hours`;
  return `${Math.round(seconds / 86400)} days`;
}

export function progressOf(task) {
  const { position } = task;
  if (task.stage === "queued") return position ? `Queued at position ${position}` : "Queued";
  return task.progress ? `Running, ${Math.round(task.progress * 100)} %` : "Running";
}

// What happened to a task without an image, what it cost, and what to do.
export function endingOf(task, keepFor = null) {
  if (task.gone) {
    const time = keepFor ? ` for ${span(keepFor)} after they are made` : " for a limited time";
    return { title: "No longer kept", text: `The server keeps images${time}, and this one is gone. Its prompt is here: make it again.` };
  }
  const cost = task.cost ? `It cost ${credits(task.cost)}.` : "It cost nothing.";
  const details = task.details ?? {};
  switch (task.status) {
    case "Request Moderated":
    case "Content Moderated": {
      const reasons = (details["Moderation Reasons"] ?? []).join(", ");
      const where = task.status === "Request Moderated" ? "The request was refused by moderation" : "The image was made and held back by moderation";
      return { title: "Moderated", text: `${where}${reasons ? ` (${reasons})` : ""}. ${cost} Word the prompt differently and try again.` };
    }
    case "Task not found":
      return { title: "Not found", text: `The service does not know this task any more. ${cost} Make the image again.` };
    default:
      if (details.error === "cancelled") return { title: "Cancelled", text: `You cancelled it. ${cost}` };
      if (details.error === "in_doubt" && details.settled) {
        return { title: "Settled", text: `The service did not answer, and the operator found it ${details.settled}. ${cost} Make the image again.` };
      }
      if (details.error === "in_doubt") {
        return { title: "In doubt", text: "The service may have charged for this image and did not answer. The operator of this server can settle it; do not repeat it before." };
      }
      return { title: "Failed", text: `${details.message || details.error || "The engine could not make it"}. ${cost} Try again, or choose another model.` };
  }
}

export function refusalOf(entry) {
  switch (entry.state) {
    case "sending":
      return { title: "Sending", text: "" };
    case "waiting":
      return { title: "Waiting", text: `${entry.message} It is sent by itself as soon as there is room.` };
    case "unanswered":
      return { title: "Not answered yet", text: "The server did not answer. It is sent again with the same idempotency key, so it is paid for once." };
    case "doubt":
      return { title: "In doubt", text: "This was sent a while ago and never answered. Look whether its image is in the gallery before you make it again." };
    default:
      return refused(entry);
  }
}

function refused(entry) {
  if (entry.status === 402) {
    return { title: "Out of credits", text: `${entry.message}. Nothing was charged. Ask the operator of this server for credits, or choose a cheaper model.` };
  }
  if (entry.status === 401 || entry.status === 403) {
    return { title: "Key refused", text: `${entry.message} Nothing was charged. Connect a key that this server knows.` };
  }
  return { title: "Not accepted", text: `${entry.message}. Nothing was charged.` };
}

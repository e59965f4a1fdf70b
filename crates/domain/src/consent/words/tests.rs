use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn said(text: &str) -> Intent {
    classify(&ConsentWords::default(), text)
}

fn tap(payload: Option<&str>, title: &str) -> Tap {
    tapped(&ConsentWords::default(), payload, Some(title))
}

/// A tap that says this whatever it stands under.
fn anywhere(intent: Intent) -> Tap {
    Tap { intent, answer: Intent::Other }
}

/// A tap that says this under the opt-in message only.
fn under_the_opt_in(answer: Intent) -> Tap {
    Tap { intent: Intent::Other, answer }
}

#[test]
fn a_stop_is_recognised_however_it_is_written() {
    for text in [
        "STOP",
        "stop",
        " Stop! ",
        "stop.",
        "STOP\n",
        "“Stop”",
        "*STOP*",
        "```stop```",
        "🛑 STOP 🛑",
        "stop please",
        "Please stop!!!",
        "stop stop stop",
        "No, stop",
        "no no stop",
        "Stop. No.",
        "STOPP",
        "Bitte abmelden",
        "baja, por favor",
        "Arrêter",
        "ARRETER",
        "arre\u{302}ter",
        "arrèter",
        "basta",
        "sair",
        "afmelden",
        "İPTAL",
        "iptal lütfen",
        "wypisz mnie",
        "unsubscribe",
        "Unsubscribe me",
        "stop it",
        "STOP IT!",
        "Stop this, please",
        "stop texting me",
        "Opt-out",
        "opt me out",
        "stop sending me messages",
        "Don’t contact me",
        "s\u{200b}top",
        "s\u{ad}t\u{ad}o\u{ad}p",
        "\u{feff}stop\u{2060}",
        "\u{202e}STOP\u{202c}",
        "ＳＴＯＰ",
        "ｓｔｏｐ！",
        "𝐒𝐓𝐎𝐏",
        "ⓈⓉⓄⓅ",
        "S T O P",
        "s.t.o.p.",
        "STOOOP",
        "stopppp!!",
        "S̶T̶O̶P̶",
    ] {
        assert_eq!(said(text), Intent::Stop, "{text:?}");
    }
    for (before, after) in [(4000, 0), (0, 4000), (2000, 2000)] {
        let padded = format!("{}stop{}", " \n".repeat(before), "!\u{200b}".repeat(after));
        assert_eq!(said(&padded), Intent::Stop, "what stands around it may be long");
    }
    assert_eq!(said(&"STOP ".repeat(13_000)), Intent::Stop, "so may it be itself");
}

#[test]
fn a_sentence_about_stopping_is_conversation() {
    for text in [
        "please don't stop",
        "please don’t stop",
        "bus stop",
        "stop by tomorrow",
        "I can't stop laughing",
        "the next stop, please",
        "non-stop",
        "end of the month",
        "cancel my order",
        "yes, cancel",
        "do not start",
        "no problem",
        "stopwatch",
        "st op",
        "СТОП",
        "ѕtор",
        "🛑",
        "",
    ] {
        assert_eq!(said(text), Intent::Other, "{text:?}");
    }
}

#[test]
fn what_people_say_in_passing_in_one_language_is_no_answer_in_another() {
    for text in [
        "Dur !",
        "Weiter",
        "weiter!",
        "Alta",
        "Pare",
        "Prima",
        "Ferma",
        "Résumé ?",
        "Resume",
        "Başta",
        "Şair",
        "Kabul",
        "¿Y?",
        "Vale",
    ] {
        assert_eq!(said(text), Intent::Other, "{text:?}");
    }
}

/// Words that everybody says all day, about anything: pronouns, articles, questions, greetings, small verbs. Not those for yes and no.
const ORDINARY: &[(&str, &str)] = &[
    (
        "English",
        "i me my you he she it we they this that the a an and or but if not what who when where why how which is are was \
         be have has do does did can could will would may go come see say get know think want need like here there then \
         now so too very good well fine great nice hi hello hey bye thanks sorry maybe never always again today tomorrow \
         later soon one two all some any more less please wait look help done right wrong sim",
    ),
    (
        "German",
        "ich du er sie es wir ihr mich dir uns mein dein der die das ein eine und oder aber wenn nicht was wer wann wo \
         warum wie welche ist sind war sein haben hat kann will muss gehen komm sag weiß hier da dann jetzt so zu sehr gut \
         schön toll hallo tschüss danke bitte entschuldigung vielleicht immer wieder heute morgen später bald eins zwei \
         alle viel mehr weniger doch mal schon noch weiter genau richtig falsch alt hart also",
    ),
    (
        "Spanish",
        "yo tú él ella nosotros ellos me te se mi tu su el la los las un una y o pero que quién cuándo dónde cómo cuál es \
         son era ser estar tengo tiene hay hacer puedo quiero voy ven ver dice aquí allí ahora luego así muy bien mal \
         bueno hola adiós gracias perdón quizás nunca siempre hoy mañana tarde pronto uno dos todo algo más menos espera \
         mira ayuda verdad como alta sal",
    ),
    (
        "French",
        "je tu il elle nous vous ils me te se mon ton son le la les un une et ou mais que qui quand où pourquoi comment \
         quel est sont était être avoir a fait peux veux vais viens voir dit ici là maintenant alors très bien mal bon \
         bonjour salut merci pardon peut-être jamais toujours aujourd'hui demain tard bientôt deux tout plus moins \
         attends regarde aide vrai faux dur pare",
    ),
    (
        "Italian",
        "io tu lui lei noi voi loro mi ti mio tuo suo il lo la i gli le un una e o ma che chi quando dove perché come \
         quale è sono era essere avere ho ha fare posso voglio vado vieni vedere dice qui là adesso allora così molto \
         bene male buono ciao grazie scusa forse mai sempre oggi domani tardi presto uno due tutto qualcosa più meno \
         aspetta guarda aiuto vero vale pare prima alta dura sale",
    ),
    (
        "Portuguese",
        "eu tu ele ela nós eles me te se meu teu seu o a os as um uma e ou mas que quem quando onde porque como qual é \
         são era ser estar tenho tem fazer posso quero vou vem ver diz aqui ali agora então assim muito bem mal bom olá \
         oi tchau obrigado desculpa talvez nunca sempre hoje amanhã tarde logo dois tudo algo mais menos espera olha \
         ajuda verdade na da do",
    ),
    (
        "Dutch",
        "ik jij hij zij het wij jullie mij jou ons mijn jouw de een en of maar als niet wat wie wanneer waar waarom hoe \
         welke is zijn was hebben heeft kan wil moet gaan kom zie zeg weet hier daar dan nu zo te heel goed mooi leuk \
         hallo doei bedankt sorry misschien nooit altijd weer vandaag morgen later straks twee alles veel meer minder \
         even toch wel nog wacht kijk hulp waar best verder",
    ),
    (
        "Turkish",
        "ben sen o biz siz onlar bana sana benim senin bir ve veya ama eğer değil ne kim zaman nerede neden nasıl hangi \
         var yok idi olmak yap git gel bak söyle bil burada orada şimdi sonra böyle çok iyi güzel kötü merhaba selam \
         teşekkürler pardon belki asla hep yine bugün yarın geç yakında iki hepsi daha az bekle yardım doğru yanlış başta \
         şair kabul",
    ),
    (
        "Polish",
        "ja ty on ona ono my wy oni mnie ciebie nas mój twój i lub ale jeśli co kto kiedy gdzie dlaczego jak który jest \
         są był być mam ma mogę chcę idę chodź widzę mówi wiem tu tam teraz potem bardzo dobrze źle dobry cześć hej \
         dziękuję przepraszam może nigdy zawsze znowu dziś jutro później wkrótce dwa wszystko więcej mniej czekaj patrz \
         pomoc prawda na do od z w ferma pan pani",
    ),
];

#[test]
fn no_word_that_people_say_all_day_in_one_of_the_languages_is_an_answer_in_any() {
    // Portuguese, German and Dutch for yes, and what nobody writes alone in English or Polish.
    const NOBODY_CAN_DO_WITHOUT: &[&str] = &["sim", "ja"];
    for (language, words) in ORDINARY {
        for word in words.split_whitespace().filter(|word| !NOBODY_CAN_DO_WITHOUT.contains(word)) {
            for text in [word.to_owned(), format!("{word}!"), word.to_uppercase()] {
                assert_eq!(said(&text), Intent::Other, "{language}: {text}");
            }
        }
    }
}

#[test]
fn marketing_alone_is_stopped_by_whatsapps_button_and_by_words_like_it() {
    for text in [
        "Stop promotions",
        "STOP PROMOTIONS",
        "stop promotions please",
        "No, stop promotions!",
        "Detener promociones",
        "Parar promoções",
        "PARAR PROMOCOES",
        "Arrêter les promotions",
        "Interrompi promozioni",
        "Werbung stoppen",
        "Keine Werbung mehr",
        "Promoties stoppen",
        "Promosyonları durdur",
        "Zatrzymaj promocje",
        "Остановить рекламу",
    ] {
        assert_eq!(said(text), Intent::StopMarketing, "{text:?}");
        assert_eq!(tap(Some(text), text), anywhere(Intent::StopMarketing), "{text:?}");
        assert_eq!(tap(Some("campaign-7"), text), anywhere(Intent::StopMarketing), "{text:?}");
        assert_eq!(tap(Some(text), "Not for me"), anywhere(Intent::StopMarketing), "{text:?}");
    }
    for payload in ["STOP_PROMOTIONS", "stop-promotions", "stopPromotions"] {
        assert_eq!(tap(Some(payload), "Not for me"), anywhere(Intent::StopMarketing), "{payload:?}");
    }
    for text in ["Stop promotions and everything else", "which promotions?"] {
        assert_eq!(said(text), Intent::Other, "{text:?}");
    }
    assert_eq!(said("Stop promotions. Stop!"), Intent::Stop, "the more it says, the more is closed");
}

#[test]
fn yes_no_and_start_are_understood_in_every_language() {
    for text in [
        "Yes",
        "yes please",
        "yessss",
        "OK 👍",
        "Ja",
        "Ja, bitte!",
        "Ja gerne",
        "Ja graag",
        "Jawohl",
        "Sí",
        "si",
        "Sì",
        "Oui",
        "j'accepte",
        "d’accord",
        "va bene",
        "Sim",
        "Evet",
        "TAK",
    ] {
        assert_eq!(said(text), Intent::Accept, "{text:?}");
    }
    for text in [
        "No",
        "no thanks",
        "No, thank you!",
        "nooo",
        "Nein danke",
        "Non merci",
        "não",
        "Nee, bedankt",
        "Hayır",
        "HAYIR",
        "nie",
    ] {
        assert_eq!(said(text), Intent::Decline, "{text:?}");
    }
    for text in ["START", "start please", "unstop", "Démarrer", "Başla", "wznów"] {
        assert_eq!(said(text), Intent::Start, "{text:?}");
    }
    for text in ["yes but call me first", "no idea", "👍", "please", "thanks", "okay see you tomorrow then", "yes no"]
    {
        assert_eq!(said(text), Intent::Other, "{text:?}");
    }
}

#[test]
fn a_payload_of_ours_decides_whatever_the_button_is_called() {
    assert_eq!(tap(Some("OPT_IN_ACCEPT"), "Count me in"), anywhere(Intent::Accept));
    assert_eq!(tap(Some("opt_in_decline"), "Yes, leave me alone"), anywhere(Intent::Decline));
    assert_eq!(tap(Some(" STOP "), "Mute"), anywhere(Intent::Stop));
    assert_eq!(tapped(&ConsentWords::default(), Some("START"), None), anywhere(Intent::Start));
}

#[test]
fn any_other_button_answers_under_the_opt_in_message_only_unless_it_can_mean_nothing_but_an_opt_out() {
    // WhatsApp sends the title as the payload when the template call gave none.
    for payload in [None, Some(""), Some("Yes"), Some("APPOINTMENT_42")] {
        assert_eq!(tap(payload, "Yes"), under_the_opt_in(Intent::Accept), "{payload:?}");
    }
    for title in ["Ja", "Vale"] {
        assert_eq!(tap(Some(title), title), under_the_opt_in(Intent::Accept), "what else may stand on a button there");
    }
    for payload in [None, Some("No thanks"), Some("APPOINTMENT_42_CANCELLED")] {
        assert_eq!(tap(payload, "No thanks"), under_the_opt_in(Intent::Decline), "{payload:?}");
    }
    for ambiguous in ["Cancel", "End", "Baja", "Cancelar", "Abmelden", "Quit"] {
        for payload in [ambiguous, "order-7"] {
            assert_eq!(tap(Some(payload), ambiguous), under_the_opt_in(Intent::Stop), "{ambiguous}");
        }
    }
    for clear in ["Stop", "STOP", "Unsubscribe", "Unsubscribe me", "Opt out", "Me désabonner"] {
        for payload in [clear, "promo-7"] {
            assert_eq!(tap(Some(payload), clear), anywhere(Intent::Stop), "{clear}");
        }
        assert_eq!(tap(Some(clear), "Not for me"), anywhere(Intent::Stop), "{clear}");
    }
    assert_eq!(tapped(&ConsentWords::default(), None, None), Tap::default());
    assert_eq!(tap(Some("promo-7"), "Tell me more"), Tap::default());
}

#[test]
fn an_organization_brings_its_own_words_but_cannot_lose_stop() {
    let own = ConsentWords {
        stop: vec!["Genug!".to_owned(), "no gracias".to_owned()],
        stop_marketing: vec![],
        stop_titles: vec!["Nicht mehr".to_owned()],
        start: vec![],
        ..ConsentWords::default()
    };
    let organization = OrganizationId::from("acme");
    let vocabulary = ConsentVocabulary {
        default: ConsentWords::default(),
        organizations: BTreeMap::from([(organization.clone(), own)]),
    };
    let words = vocabulary.for_organization(&organization);
    assert_eq!(classify(words, "genug"), Intent::Stop);
    assert_eq!(classify(words, "No, gracias."), Intent::Stop, "courtesy that it asks for is none");
    assert_eq!(classify(words, "stop"), Intent::Stop);
    assert_eq!(classify(words, "start"), Intent::Start);
    assert_eq!(classify(words, "basta"), Intent::Other);
    assert_eq!(classify(words, "Stop promotions"), Intent::StopMarketing);
    assert_eq!(tapped(words, Some("x"), Some("Stop")).intent, Intent::Stop);
    assert_eq!(tapped(words, Some("x"), Some("nicht mehr")).intent, Intent::Stop);
    let others = vocabulary.for_organization(&OrganizationId::from("other"));
    assert_eq!(classify(others, "basta"), Intent::Stop);
    assert_eq!(classify(others, "genug"), Intent::Other);
}

fn effort(text: &str) -> Effort {
    measured(&ConsentWords::default(), text).1
}

#[test]
fn saying_no_many_times_costs_as_many_steps() {
    for (text, means) in [
        ("no ".repeat(33), Intent::Decline),
        ("no ".repeat(20_000), Intent::Decline),
        ("no ".repeat(20_000) + "stop", Intent::Stop),
        ("no ".repeat(20_000) + "way", Intent::Other),
        ("stop sending me ".repeat(4_000), Intent::Other),
        ("stop please ".repeat(5_000), Intent::Stop),
        ("please ".repeat(9_000), Intent::Other),
        ("\u{fdfa}".repeat(65_536), Intent::Other),
    ] {
        assert_eq!(said(&text), means);
        let effort = effort(&text);
        assert!(effort.is_linear() && effort.words <= spelling::words(&text).count(), "{effort:?}");
    }
}

proptest! {
    #[test]
    fn what_is_made_of_the_words_of_all_lists_is_understood_in_linear_time(
        phrases in vec((any::<prop::sample::Index>(), 1_usize..40), 1..60),
    ) {
        let ConsentWords { accept, decline, stop, stop_marketing, start, .. } = ConsentWords::default();
        let courtesy = defaults::COURTESY.split_whitespace().map(str::to_owned).collect();
        let all: Vec<String> = [accept, decline, stop, stop_marketing, start, courtesy].concat();
        // Whole phrases and the beginnings of phrases.
        let parts: Vec<String> = phrases.into_iter().map(|(index, words)| {
            let phrase = index.get(&all);
            phrase.split(' ').take(words).collect::<Vec<_>>().join(" ")
        }).collect();
        let text = parts.join(" ");
        let effort = effort(&text);
        prop_assert!(effort.is_linear(), "{:?}", effort);
    }

    #[test]
    fn nothing_that_can_be_written_is_too_strange(text in any::<String>(), title in ".{0,40}") {
        prop_assert!(effort(&text).is_linear());
        let _ = (said(&text), tap(Some(&text), &title), tap(Some(&title), &text));
    }

    #[test]
    fn decoration_changes_nothing(
        (word, means) in select(vec![
            ("stop", Intent::Stop), ("arrêter", Intent::Stop), ("yes", Intent::Accept), ("nein", Intent::Decline),
        ]),
        around in vec(select(vec!["!", " ", "\n", "🛑", "\u{200b}", "“", "*", "_", ".", "…", "\u{ad}", "👍🏽"]), 0..12),
        after in any::<prop::sample::Index>(),
    ) {
        let at = after.index(around.len() + 1);
        let text = format!("{}{word}{}", around[..at].concat(), around[at..].concat());
        prop_assert_eq!(said(&text), means, "{:?}", text);
    }
}
